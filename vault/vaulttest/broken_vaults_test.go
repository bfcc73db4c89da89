package vaulttest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// brokenVaults are each wrong in one way, which the suite must find.
var brokenVaults = []struct {
	name    string
	part    string // the part of the suite that must fail
	says    string // what its message must hold
	breakIt func(b *broken)
}{
	{"get leaves the version out", "get answers with the complete key", "want vault, name", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			k, err := b.Vault.GetKey(ctx, id)
			k.ID.Version = id.Version
			return k, err
		}
	}},
	{"wrap leaves the vault out", "wrap and unwrap every size", "want vault, name", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			w, err := b.Vault.WrapKey(ctx, id, s)
			w.KeyID.Vault = ""
			return w, err
		}
	}},
	{"unwrap cuts long secrets", "wrap and unwrap every size", "another secret", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			s, err := b.Vault.UnwrapKey(ctx, w)
			return s[:min(len(s), 189)], err
		}
	}},
	{"wrap cuts what is too long", "wrap refuses a secret of 0 or 191 bytes", "191 bytes", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			return b.Vault.WrapKey(ctx, id, s[:min(len(s), vault.MaxSecret)])
		}
	}},
	{"a secret that is too long is a denial", "wrap refuses a secret of 0 or 191 bytes", "for a mistake of the caller's", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			if len(s) > vault.MaxSecret {
				return vault.Wrapped{}, b.fail(vault.OpWrapKey, id, vault.ErrUnsupportedKey)
			}
			return b.Vault.WrapKey(ctx, id, s)
		}
	}},
	{"a secret that is too long is to be tried again", "wrap refuses a secret of 0 or 191 bytes", "Transient true", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			if len(s) > vault.MaxSecret {
				return vault.Wrapped{}, b.fail(vault.OpWrapKey, id, vault.ErrUnavailable)
			}
			return b.Vault.WrapKey(ctx, id, s)
		}
	}},
	{"unwrap without a version is a denial", "unwrap refuses without a version", "for a mistake of the caller's", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			if w.KeyID.Version == "" {
				return nil, b.fail(vault.OpUnwrapKey, w.KeyID, vault.ErrKeyNotFound)
			}
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"versions have a dot", "get answers with the complete key", "may have 0-9, a-z, A-Z", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			k, err := b.Vault.GetKey(ctx, id)
			k.ID.Version = "1." + k.ID.Version
			return k, err
		}
	}},
	{"names are trimmed", "an id that no key can have is refused", "a name with a space at the end succeeded", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			id.Name = strings.TrimSpace(id.Name)
			return b.Vault.GetKey(ctx, id)
		}
	}},
	{"names are paths", "an id that no key can have is refused", "a name with a path to itself succeeded", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			id.Name = path.Base(path.Clean(id.Name))
			return b.Vault.WrapKey(ctx, id, s)
		}
	}},
	{"names end at a NUL", "an id that no key can have is refused", "a name with a NUL and more succeeded", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			w.KeyID.Name, _, _ = strings.Cut(w.KeyID.Name, "\x00")
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"names are cut", "an id that no key can have is refused", "a name with 300 bytes succeeded", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			id.Name = id.Name[:min(len(id.Name), len("kek"))]
			return b.Vault.GetKey(ctx, id)
		}
	}},
	{"names are made ASCII", "an id that no key can have is refused", "a name with a look-alike succeeded", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			id.Name = strings.Map(func(c rune) rune {
				if c > '~' {
					return -1
				}
				return c
			}, id.Name)
			return b.Vault.GetKey(ctx, id)
		}
	}},
	{"an empty name is any key", "an id that no key can have is refused", "an empty name succeeded", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			if id.Name == "" {
				id.Name = "kek"
			}
			return b.Vault.WrapKey(ctx, id, s)
		}
	}},
	{"versions are unescaped", "an id that no key can have is refused", "a version with an escaped NUL succeeded", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			id.Version, _, _ = strings.Cut(id.Version, "%00")
			return b.Vault.GetKey(ctx, id)
		}
	}},
	{"a hostile name is a denial of access", "an id that no key can have is refused", "for a mistake of the caller's", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			if id.Validate() != nil {
				return vault.Key{}, b.fail(vault.OpGet, id, vault.ErrAccessDenied)
			}
			return b.Vault.GetKey(ctx, id)
		}
	}},
	{"a hostile name is unavailable", "an id that no key can have is refused", "Transient true", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			if id.Validate() != nil {
				return vault.Key{}, b.fail(vault.OpGet, id, vault.ErrUnavailable)
			}
			return b.Vault.GetKey(ctx, id)
		}
	}},
	{"an error has a hostile name as it is", "an id that no key can have is refused", "quote them", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			if id.Validate() != nil {
				return vault.Key{}, errors.New("get: no key " + id.Name)
			}
			return b.Vault.GetKey(ctx, id)
		}
	}},
	{"wrap is deterministic", "each wrap differs", "same ciphertext twice", func(b *broken) {
		memo := map[string]vault.Wrapped{}
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			if w, ok := memo[string(s)]; ok {
				return w, nil
			}
			w, err := b.Vault.WrapKey(ctx, id, s)
			memo[string(s)] = w
			return w, err
		}
	}},
	{"wrap uses a label", "the algorithm is RSA-OAEP-SHA256 without a label", "UnwrapKey", func(b *broken) {
		label := []byte("label")
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			m, full, err := b.find(vault.OpWrapKey, id)
			if err != nil {
				return vault.Wrapped{}, err
			}
			c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &m.private.PublicKey, s, label)
			return vault.Wrapped{KeyID: full, Ciphertext: c}, err
		}
		b.unwrap = func(_ context.Context, w vault.Wrapped) ([]byte, error) {
			m, full, err := b.find(vault.OpUnwrapKey, w.KeyID)
			if err != nil {
				return nil, err
			}
			s, err := rsa.DecryptOAEP(sha256.New(), nil, m.private, w.Ciphertext, label)
			if err != nil {
				return nil, &vault.Error{Op: vault.OpUnwrapKey, Key: full, Kind: vault.ErrBadCiphertext}
			}
			return s, nil
		}
	}},
	{"unwrap takes the current version", "unwrap refuses without a version", "succeeded", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			if w.KeyID.Version == "" {
				k, err := b.Vault.GetKey(ctx, w.KeyID)
				if err != nil {
					return nil, err
				}
				w.KeyID = k.ID
			}
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"unwrap ignores trailing bytes", "unwrap refuses an altered ciphertext", "extended by 1", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			w.Ciphertext = w.Ciphertext[:min(len(w.Ciphertext), vault.WrappedSize)]
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"an altered ciphertext is called unavailable", "unwrap refuses an altered ciphertext", "(truncated by 1): error", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			s, err := b.Vault.UnwrapKey(ctx, w)
			return s, turn(err, vault.ErrBadCiphertext, func(error) error { return b.fail(vault.OpUnwrapKey, w.KeyID, vault.ErrUnavailable) })
		}
	}},
	{"an unknown version is the current one", "an unknown key or version is not found", "succeeded", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			return b.Vault.GetKey(ctx, id.Versionless())
		}
	}},
	{"the vault's name is not looked at", "a key of another vault is not found", "succeeded", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			w.KeyID.Vault = ""
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"the context is ignored", "an ended context ends the call", "went on", func(b *broken) {
		b.unwrap = func(_ context.Context, w vault.Wrapped) ([]byte, error) {
			return b.Vault.UnwrapKey(context.Background(), w)
		}
	}},
	{"an ended context is a denial", "an ended context ends the call", "Denied true", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			if ctx.Err() != nil {
				return vault.Key{}, b.fail(vault.OpGet, id, vault.ErrAccessDenied)
			}
			return b.Vault.GetKey(ctx, id)
		}
	}},
	{"unwrap reuses its buffer", "no slice is shared with the caller", "overwrote", func(b *broken) {
		buffer := make([]byte, vault.MaxSecret)
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			s, err := b.Vault.UnwrapKey(ctx, w)
			if err != nil {
				return nil, err
			}
			return buffer[:copy(buffer, s)], nil
		}
	}},
	{"wrap clears the caller's secret", "no slice is shared with the caller", "changed the caller's secret", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			defer clear(s)
			return b.Vault.WrapKey(ctx, id, s)
		}
	}},
	{"operations are shared", "no slice is shared with the caller", "shares Operations", func(b *broken) {
		shared := []vault.Operation{vault.OpWrapKey, vault.OpUnwrapKey}
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			k, err := b.Vault.GetKey(ctx, id)
			k.Operations = shared
			return k, err
		}
	}},
	{"two calls at once are mixed up", "concurrent calls", "concurrent", func(b *broken) {
		var calls atomic.Int32
		two := make(chan struct{})
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			s, err := b.Vault.UnwrapKey(ctx, w)
			switch calls.Add(1) {
			case 1: // it stays until there is another, which takes its answer away
				select {
				case <-two:
					clear(s)
				case <-time.After(time.Minute):
				}
			case 2:
				close(two)
			}
			return s, err
		}
	}},
	{"unwrap takes the newest version", "rotation keeps old versions", "UnwrapKey", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			k, err := b.Vault.GetKey(ctx, w.KeyID.Versionless())
			if err != nil {
				return nil, err
			}
			w.KeyID = k.ID
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"wrap stays with the first version", "rotation keeps old versions", "want the current version", func(b *broken) {
		var first vault.KeyID
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			if id.Version == "" && first.Version != "" {
				id = first
			}
			w, err := b.Vault.WrapKey(ctx, id, s)
			first = w.KeyID
			return w, err
		}
	}},
	{"get hides a disabled key", "a disabled key", "GetKey", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			k, err := b.Vault.GetKey(ctx, id)
			if err == nil && !k.Enabled {
				return vault.Key{}, b.fail(vault.OpGet, id, vault.ErrKeyDisabled)
			}
			return k, err
		}
	}},
	{"a disabled key unwraps", "a disabled key", "succeeded", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			defer b.SetEnabled(w.KeyID, enabled(b.Vault, w.KeyID))
			b.SetEnabled(w.KeyID, true)
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"only the current version's state counts", "one version disabled", "succeeded", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			if !enabled(b.Vault, w.KeyID.Versionless()) {
				return nil, b.fail(vault.OpUnwrapKey, w.KeyID, vault.ErrKeyDisabled)
			}
			defer b.SetEnabled(w.KeyID, enabled(b.Vault, w.KeyID))
			b.SetEnabled(w.KeyID, true)
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"dates are not returned", "an expired key", "dates", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			k, err := b.Vault.GetKey(ctx, id)
			k.Expires = time.Time{}
			return k, err
		}
	}},
	{"an expired key wraps", "an expired key", "succeeded", func(b *broken) { b.wrap = ignoringDates(b) }},
	{"a key not yet valid wraps", "a key not yet valid", "succeeded", func(b *broken) { b.wrap = ignoringDates(b) }},
	{"a deleted key is unavailable", "a deleted key", "that matches", func(b *broken) {
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			k, err := b.Vault.GetKey(ctx, id)
			return k, turn(err, vault.ErrKeyDeleted, func(error) error { return b.fail(vault.OpGet, id, vault.ErrUnavailable) })
		}
	}},
	{"recovery is not noticed", "a recovered key", "key deleted", func(b *broken) {
		var gone error
		b.get = func(ctx context.Context, id vault.KeyID) (vault.Key, error) {
			k, err := b.Vault.GetKey(ctx, id)
			if errors.Is(err, vault.ErrKeyDeleted) {
				gone = err
			}
			return k, err
		}
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			if gone != nil {
				return nil, gone
			}
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"a purged key is called deleted", "a purged key", "that matches", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			w, err := b.Vault.WrapKey(ctx, id, s)
			return w, turn(err, vault.ErrKeyNotFound, func(error) error { return b.fail(vault.OpWrapKey, id, vault.ErrKeyDeleted) })
		}
	}},
	{"get needs no permission", "each permission alone", "succeeded", func(b *broken) {
		b.get = func(_ context.Context, id vault.KeyID) (vault.Key, error) {
			m, full, err := b.find(vault.OpGet, id)
			return vault.Key{ID: full, Public: &m.private.PublicKey, Enabled: m.enabled, NotBefore: m.notBefore, Expires: m.expires, Operations: m.operations}, err
		}
	}},
	{"one permission gone refuses everything", "each permission alone", "access denied", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			if _, err := b.Vault.GetKey(ctx, w.KeyID); errors.Is(err, vault.ErrAccessDenied) {
				return nil, b.fail(vault.OpUnwrapKey, w.KeyID, vault.ErrAccessDenied)
			}
			return b.Vault.UnwrapKey(ctx, w)
		}
	}},
	{"an error matches two kinds", "a disabled key", "also matches", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			w, err := b.Vault.WrapKey(ctx, id, s)
			return w, turn(err, vault.ErrKeyDisabled, func(err error) error { return errors.Join(err, vault.ErrKeyNotFound) })
		}
	}},
	{"an error does not name the key", "a disabled key", "does not name the key", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			w, err := b.Vault.WrapKey(ctx, id, s)
			return w, turn(err, vault.ErrKeyDisabled, func(error) error { return fmt.Errorf("wrapKey: %w", vault.ErrKeyDisabled) })
		}
	}},
	{"an error does not name the operation", "a disabled key", "does not name the operation", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			w, err := b.Vault.WrapKey(ctx, id, s)
			return w, turn(err, vault.ErrKeyDisabled, func(error) error { return fmt.Errorf("%s: %w", id, vault.ErrKeyDisabled) })
		}
	}},
	{"an error prints the secret", "a disabled key", "bytes of the secret", func(b *broken) {
		b.wrap = func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
			w, err := b.Vault.WrapKey(ctx, id, s)
			return w, turn(err, vault.ErrKeyDisabled, func(err error) error { return fmt.Errorf("%w: secret %x", err, s) })
		}
	}},
	{"a refusal comes with the secret", "a disabled key", "with its error", func(b *broken) {
		b.unwrap = func(ctx context.Context, w vault.Wrapped) ([]byte, error) {
			s, err := b.Vault.UnwrapKey(ctx, w)
			if errors.Is(err, vault.ErrKeyDisabled) {
				m, _, _ := b.find(vault.OpUnwrapKey, w.KeyID)
				s, _ = rsa.DecryptOAEP(sha256.New(), nil, m.private, w.Ciphertext, nil)
			}
			return s, err
		}
	}},
}

// turn replaces err in what a good vault answers.
func turn(err error, from error, to func(error) error) error {
	if errors.Is(err, from) {
		return to(err)
	}
	return err
}

func enabled(v *Vault, id vault.KeyID) bool {
	m, _, err := v.find(vault.OpGet, id)
	return err == nil && m.enabled
}

// ignoringDates wraps as if the key had no dates.
func ignoringDates(b *broken) func(context.Context, vault.KeyID, []byte) (vault.Wrapped, error) {
	return func(ctx context.Context, id vault.KeyID, s []byte) (vault.Wrapped, error) {
		m, full, err := b.find(vault.OpWrapKey, id)
		if err != nil {
			return vault.Wrapped{}, err
		}
		b.SetDates(full, time.Time{}, time.Time{})
		defer b.SetDates(full, m.notBefore, m.expires)
		return b.Vault.WrapKey(ctx, id, s)
	}
}
