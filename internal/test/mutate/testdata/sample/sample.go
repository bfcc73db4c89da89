// Package sample is code with tests that do not notice everything.
package sample

import "errors"

// Key is a secret.
type Key struct{ b []byte }

// Destroy overwrites the key, and tells so.
func (k *Key) Destroy(told *bool) {
	clear(k.b)
	tell(told)
}

func tell(told *bool) { *told = true }

var errNegative = errors.New("negative")

// Admit admits a number from 0 to 9.
func Admit(n int) error {
	if n < 0 {
		return errNegative
	}
	if n > 9 {
		return errors.New("too large")
	}
	return nil
}
