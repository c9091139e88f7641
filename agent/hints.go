package agent

import "errors"

// ErrorHint is one line of advice for an error, "" if there is none.
func ErrorHint(err error) string {
	var se *SpecError
	if errors.As(err, &se) {
		return se.Hint
	}
	return ""
}
