package block

import (
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/kek"
)

// requireKEK refuses a KEK that is none, or that no vault has, before a store or a copy is looked
// at.
func requireKEK(k *kek.KEK) error {
	switch {
	case k == nil:
		return errors.New("a KEK is required")
	case k.Vault() == nil:
		return errors.New("a KEK is required that has a vault, as kek.New makes it")
	}
	return nil
}

// requireOthers refuses Options.Keyring.OtherKEKs of which one is none.
func requireOthers(keks []*kek.KEK) error {
	for i, k := range keks {
		if err := requireKEK(k); err != nil {
			return fmt.Errorf("block: options: Keyring.OtherKEKs[%d]: %w", i, err)
		}
	}
	return nil
}
