package inflate

// The slow loop: one symbol at a time, every index checked by the language.
// It finishes what the fast loop leaves, that is the last bytes of each input
// slice and of a range, and is the reference that the tests hold the fast
// loop against.

// slow decodes symbols until the fast loop may take over, the soft limit is
// reached or the block ends.
func (r *Reader) slow() outcome {
	t := r.tab
	for r.w < r.soft {
		if !r.onlySlow && len(r.in)-r.ip >= inSlack && r.w < r.fastSoft {
			return atLimit
		}
		r.refill()
		e := uint64(t.lit[r.bits&litMask])
		if e&excFlag != 0 && e&kindMask == kindSub {
			e = uint64(t.lit[(e>>16+r.bits>>litBits&(1<<(e>>8&15)-1))&(litSize-1)])
		}
		if e&pairFlag != 0 { // the literal alone: a range may end behind it
			e = litFlag | e>>8&0xff<<16 | r.literalBits(e>>8&0xff)
		}
		if e&63 > r.nb {
			return endOfInput
		}
		if e&litFlag != 0 {
			if r.out[r.w] = byte(e >> 16); r.marks != nil {
				r.marks[r.w] = 0
			}
			r.w++
			r.drop(e & 63)
			continue
		}
		if e&excFlag != 0 {
			if e&kindMask == kindEnd {
				r.drop(e & 63)
				return endOfBlock
			}
			return badSymbol
		}
		r.length = int(e>>21 + r.bits>>(e>>8&63)&(e>>16&31) + 3)
		r.drop(e & 63)
		r.refill()
		d := t.dist[r.bits&distMask]
		if d&farFlag != 0 && d&kindMask == kindSub {
			d = t.dist[(d>>16+r.bits>>distBits&(1<<(d>>8&15)-1))&(distSize-1)]
		}
		if d&63 > r.nb {
			return endOfInput
		}
		if d&farFlag != 0 {
			return badSymbol
		}
		r.dist = int(d>>48 + r.bits>>(d>>8&63)&(d>>16&0x1fff))
		r.drop(d & 63)
		if r.dist > r.w-r.mark {
			return tooFar
		}
		r.repeat()
	}
	return atLimit
}

// repeat does the match r.dist, r.length, byte by byte.
func (r *Reader) repeat() {
	for range r.length {
		if r.out[r.w] = r.out[r.w-r.dist]; r.marks != nil {
			r.marks[r.w] = r.marks[r.w-r.dist]
		}
		r.w++
	}
}

// literalBits is the length of a literal's code in this block.
func (r *Reader) literalBits(lit uint64) uint64 {
	switch {
	case r.nlit > 0:
		return uint64(r.mem.lens[lit])
	case lit < 144:
		return 8
	default:
		return 9
	}
}
