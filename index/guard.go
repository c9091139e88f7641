package index

import (
	"runtime"
	"runtime/debug"
	"unsafe"
)

// guard makes an error of a fault in the mapped file: a disk that fails when a
// page is read, or a file that was cut, come as SIGBUS, which would end the
// program. Every method that touches the mapping begins with
//
//	defer x.guard(&err)()
//
// and copies what it gives out.
func (x *Index) guard(err *error) func() {
	if !x.mapped {
		return func() {}
	}
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface {
			runtime.Error
			Addr() uintptr
		})
		from := uintptr(unsafe.Pointer(unsafe.SliceData(x.b)))
		if !ok || fault.Addr() < from || fault.Addr() >= from+uintptr(len(x.b)) {
			panic(r)
		}
		*err = damaged("its file cannot be read at byte %d", fault.Addr()-from)
	}
}
