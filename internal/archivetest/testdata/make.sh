#!/bin/sh
# Makes the archives in this directory anew, with the programs that the public
# uploaders use: node-tar 7 (TypeScript client), Python's tarfile (Python
# client) and tar-stream 3 (rl-cli). Needs node, npm and python3; the result is
# committed, so that tests need none of them.
set -eu
out=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-save tar@7 tar-stream@3 >/dev/null

# The directory that all three pack. The long name needs an extended header.
umask 022
mkdir -p d/sub d/ünï
echo 'hello' >d/a.txt
printf '#!/bin/sh\necho run\n' >d/sub/run.sh
chmod 755 d/sub/run.sh
: >d/sub/empty
printf x >"d/sub/$(printf 'long-%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24).txt"
echo non-ascii >d/ünï/cödé.txt
ln d/a.txt d/hard.txt
ln -s a.txt d/soft
ln -s ../a.txt d/sub/up
find d -exec touch -h -d '2023-11-14 22:13:20 UTC' {} +

# TypeScript: uploadFromDir, that is tar.create({gzip: true, cwd: dir}, ['.']).
node -e "
require('tar').create({gzip: true, cwd: require('path').resolve('d'), file: '$out/typescript.tgz'}, ['.']).catch(e => { throw e })"

# Python: tarfile in its default format; names made relative, link names not.
python3 - "$out/python.tgz" <<'PY'
import sys, tarfile, os
def relative(ti):
    if ti.name.startswith("./"):
        ti.name = ti.name[2:]
    ti.mtime += 0.25          # os.stat gives fractions, so every entry has a PAX mtime
    return ti
with tarfile.open(sys.argv[1], "w:gz") as tar:
    tar.add("d", arcname=".", filter=relative)
PY

# rl-cli: tar-stream; below the name of the directory, uid and gid 1000, two
# modes, hard links as copies.
node - "$out/rl-cli.tgz" <<'JS'
const fs = require('fs'), path = require('path'), zlib = require('zlib')
const pack = require('tar-stream').pack()
const walk = (p, name) => {
  const st = fs.lstatSync(p), common = {uid: 1000, gid: 1000, mtime: st.mtime}
  if (st.isSymbolicLink()) {
    pack.entry({...common, name, type: 'symlink', linkname: fs.readlinkSync(p), mode: 0o777})
  } else if (st.isDirectory()) {
    pack.entry({...common, name: name + '/', type: 'directory', mode: 0o755})
    for (const e of fs.readdirSync(p).sort()) walk(path.join(p, e), name + '/' + e)
  } else {
    pack.entry({...common, name, type: 'file', mode: st.mode & 0o111 ? 0o755 : 0o644}, fs.readFileSync(p))
  }
}
walk('d', 'd')
pack.finalize()
pack.pipe(zlib.createGzip()).pipe(fs.createWriteStream(process.argv[2]))
JS
ls -l "$out"
