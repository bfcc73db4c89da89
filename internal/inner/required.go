package inner

import (
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/kek"
)

// What a caller has to give is looked at before anything else is asked, read or changed: whoever
// lost a KEK on the way, as with an error that nobody looked at, learns it from an error and not
// from a panic with the document half changed.

// RequireKEK refuses a KEK that is none, or that no vault has.
func RequireKEK(k *kek.KEK) error {
	switch {
	case k == nil:
		return errors.New("a KEK is required")
	case k.Vault() == nil:
		return errors.New("a KEK is required that has a vault, as kek.New makes it")
	}
	return nil
}

// RequireKEKs refuses an option with KEKs of which one is none. Its errors begin with the option's
// name.
func RequireKEKs(option string, keks []*kek.KEK) error {
	for i, k := range keks {
		if err := RequireKEK(k); err != nil {
			return fmt.Errorf("%s[%d]: %w", option, i, err)
		}
	}
	return nil
}
