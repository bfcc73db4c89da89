package keyring

import (
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/kek"
)

// What a caller has to give is looked at before anything else is asked, read or changed: whoever
// lost a KEK on the way, as with an error that nobody looked at, learns it from an error and not
// from a panic with the document half changed.

// requireKEK refuses a KEK that is none, or that no vault has.
func requireKEK(k *kek.KEK) error {
	switch {
	case k == nil:
		return errors.New("a KEK is required")
	case k.Vault() == nil:
		return errors.New("a KEK is required that has a vault, as kek.New makes it")
	}
	return nil
}

// requireBoth refuses what Create, Open and Relocate cannot work with.
func requireBoth(s Storage, k *kek.KEK) error {
	if s == nil {
		return errors.New("a storage is required")
	}
	return requireKEK(k)
}

// requireOthers refuses Options.OtherKEKs of which one is none.
func requireOthers(keks []*kek.KEK) error {
	for i, k := range keks {
		if err := requireKEK(k); err != nil {
			return fmt.Errorf("keyring: options: OtherKEKs[%d]: %w", i, err)
		}
	}
	return nil
}
