package inflate

func (r *Reader) limitExact() (bool, error) { return false, nil }
