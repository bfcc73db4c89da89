package keyring

import (
	"errors"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
)

// requireBoth refuses what Create, Open and Relocate cannot work with.
func requireBoth(s Storage, k *kek.KEK) error {
	if s == nil {
		return errors.New("a storage is required")
	}
	return inner.RequireKEK(k)
}
