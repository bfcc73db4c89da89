package local

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

func checkDates(notBefore, expires int64) error {
	switch {
	case !validTime(notBefore) || !validTime(expires):
		return errors.New("a date is before 1970 or after 9999")
	case notBefore != 0 && expires != 0 && expires <= notBefore:
		return errors.New("it would expire before it is valid")
	}
	return nil
}

// toUnix returns whole seconds since 1970, and 0 for the zero time.
func toUnix(t time.Time) (int64, error) {
	if t.IsZero() {
		return 0, nil
	}
	s := t.Unix()
	if s <= 0 || s > maxUnix {
		return 0, errors.New("a date is before 1970 or after 9999")
	}
	return s, nil
}

func checkOperations(ops []vault.Operation) error {
	for i, op := range ops {
		switch {
		case op == OpImport && len(ops) > 1:
			// Key Vault's rule too: what unwraps transported keys unwraps nothing else.
			return errors.New("a key that permits import must permit nothing else")
		case op != OpImport && !slices.Contains(DataPlane(), op):
			return fmt.Errorf("a key has no operation %q", op)
		case slices.Contains(ops[:i], op):
			return fmt.Errorf("the operation %q is there twice", op)
		}
	}
	return nil
}
