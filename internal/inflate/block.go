package inflate

// preOrder is the order in which a dynamic block's header gives the lengths
// of the code length code.
var preOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// header takes a block's header and gets ready for its body.
func (r *Reader) header() error {
	v := r.take(3)
	r.final = v&1 != 0
	switch v >> 1 {
	case 0:
		r.align()
		n := r.take(32)
		if r.short {
			return r.ended()
		}
		if uint16(n) != ^uint16(n>>16) {
			return errStoredLen
		}
		r.stored = int(n & 0xffff)
		r.state = inStored
	case 1:
		r.useFixed()
		r.state = inBlock
	case 2:
		if err := r.dynamic(); err != nil {
			return err
		}
		r.state = inBlock
	default:
		return errBlockType
	}
	return nil
}

// dynamic takes the code lengths of a dynamic block and builds its tables.
func (r *Reader) dynamic() error {
	v := r.take(14)
	nlit, ndist, npre := int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if nlit > maxLit || ndist > maxDist {
		return errCounts
	}
	var pre [19]uint8
	for i := 0; i < npre; i++ {
		pre[preOrder[i]] = uint8(r.take(3))
	}
	if r.short {
		return r.ended()
	}
	if !build(r.mem.pre[:], preBits, pre[:], preBase[:], excFlag) {
		return errCodeLens
	}
	n := nlit + ndist
	for i := 0; i < n; {
		if r.nb < 14 {
			r.refill()
		}
		e := r.mem.pre[r.bits&(1<<preBits-1)]
		if uint64(e&63) > r.nb {
			return r.ended()
		}
		if e&excFlag != 0 {
			return errSymbol
		}
		r.drop(uint64(e & 63))
		sym := uint8(e >> 16)
		if sym < 16 {
			r.mem.lens[i] = sym
			i++
			continue
		}
		var what uint8
		var extra, rep uint64
		switch sym {
		case 16:
			if i == 0 {
				return errRepeat
			}
			what, extra, rep = r.mem.lens[i-1], 2, 3
		case 17:
			extra, rep = 3, 3
		default:
			extra, rep = 7, 11
		}
		if rep += r.take(extra); r.short {
			return r.ended()
		}
		if i+int(rep) > n {
			return errRepeat
		}
		for range rep {
			r.mem.lens[i] = what
			i++
		}
	}
	return r.useLengths(nlit, ndist)
}

// useLengths builds the tables for the code lengths in r.mem.lens.
func (r *Reader) useLengths(nlit, ndist int) error {
	r.nlit, r.ndist = nlit, ndist
	r.tab = &r.mem.tables
	lit, dist := r.mem.lens[:nlit], r.mem.lens[nlit:nlit+ndist]
	if lit[256] == 0 {
		return errNoEnd
	}
	if !build(r.mem.tables.lit[:], litBits, lit, litBase[:], excFlag) {
		return errLitCode
	}
	if !build(r.mem.tables.dist[:], distBits, dist, distBase[:], farFlag) {
		return errDistCode
	}
	return nil
}

// useFixed takes the tables of the fixed codes: a copy of its own, since the
// fast loop keeps its limits there.
func (r *Reader) useFixed() {
	if r.mem.fixed == nil {
		r.mem.fixed = new(tables)
		*r.mem.fixed = *fixed()
	}
	r.tab = r.mem.fixed
	r.nlit, r.ndist = 0, 0
}

// body decodes a Huffman block up to r.soft or its end.
func (r *Reader) body() error {
	for r.w < r.soft {
		res := atLimit
		if r.w < r.fastSoft && len(r.in)-r.ip >= inSlack && !r.onlySlow {
			if r.marks == nil {
				res = r.fast()
			} else {
				res = r.fastMarked()
			}
		}
		if res == atLimit {
			res = r.slow()
		}
		switch res {
		case endOfBlock:
			r.endBlock()
			return nil
		case endOfInput:
			return r.ended()
		case badSymbol:
			return errSymbol
		case tooFar:
			if !r.far() {
				return errFar
			}
			r.repeat()
		}
	}
	return nil
}

func (r *Reader) endBlock() {
	r.state = atBlock
	if r.final {
		r.state = atTrailer
	}
}

// copyStored copies bytes of a stored block up to r.soft or its end.
func (r *Reader) copyStored() error {
	for r.stored > 0 && r.w < r.soft {
		if r.nb > 0 {
			b, _ := r.readByte()
			if r.out[r.w] = b; r.marks != nil {
				r.marks[r.w] = 0
			}
			r.w++
			r.stored--
			continue
		}
		r.bits = 0
		if r.ip == len(r.in) && !r.next() {
			return r.ended()
		}
		n := copy(r.out[r.w:r.soft], r.in[r.ip:min(len(r.in), r.ip+r.stored)])
		if r.marks != nil {
			clear(r.marks[r.w : r.w+n])
		}
		r.ip += n
		r.w += n
		r.stored -= n
	}
	if r.stored == 0 {
		r.endBlock()
	}
	return nil
}
