package vaulttest

import (
	"testing"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// memSubject returns a Vault with one key and every hook.
func memSubject(opts *Options) (*Vault, Subject) {
	v := New(opts)
	id := v.CreateKey("kek")
	return v, Subject{
		Vault:      v,
		Key:        id.Versionless(),
		SetEnabled: v.SetEnabled,
		SetDates:   v.SetDates,
		Rotate:     v.Rotate,
		Delete:     v.Delete,
		Recover:    v.Recover,
		Purge:      v.Purge,
		Revoke:     func(op vault.Operation) { v.Revoke(op) },
		Grant:      func(op vault.Operation) { v.Restore(op) },
	}
}

func TestVaultConforms(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		_, s := memSubject(nil)
		return s
	})
}

// A vault without soft delete has Purge alone.
func TestVaultWithoutSoftDeleteConforms(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		_, s := memSubject(nil)
		s.Delete, s.Recover = nil, nil
		return s
	})
}

func TestVaultConformsUnderAFakeClock(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		clock := NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		_, s := memSubject(&Options{Name: "mem:other", Clock: clock})
		s.Now = clock.Now
		return s
	})
}
