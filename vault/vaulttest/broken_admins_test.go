package vaulttest

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// brokenAdmins are each wrong in one way, which the suite must find.
var brokenAdmins = []struct {
	name    string
	part    string // of the suite that must fail
	says    string // what its message must hold
	breakIt func(m *memAdmin, s *AdminSubject)
}{
	{"a created key is disabled", "a created key can be used", "enabled", func(m *memAdmin, s *AdminSubject) {
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			k, err := m.add(ctx, "create", name, nil, newVersion)
			if err != nil {
				return k, err
			}
			off := false
			return m.update(ctx, k.ID, AdminUpdate{Enabled: &off})
		}
	}},
	{"two keys share a pair", "a created key can be used", "same key pair", func(m *memAdmin, s *AdminSubject) {
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			return m.add(ctx, "create", name, testKey(), newVersion)
		}
	}},
	{"a create makes a version of a key that exists", "a key is not made where there is one", "create again kek succeeded", func(m *memAdmin, s *AdminSubject) {
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			_, err := m.key("create", vault.KeyID{Name: name})
			return m.add(ctx, "create", name, nil, newVersion || err == nil)
		}
	}},
	{"an import makes a version of a key that exists", "a key is not made where there is one", "import again kek succeeded", func(m *memAdmin, s *AdminSubject) {
		good := s.Import
		s.Import = func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
			_, err := m.key("import", vault.KeyID{Name: name})
			return good(ctx, name, key, newVersion || err == nil)
		}
	}},
	{"a key that exists is called invalid", "a key is not made where there is one", "key exists", func(m *memAdmin, s *AdminSubject) {
		good := s.Create
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			k, err := good(ctx, name, newVersion)
			return k, turn(err, vault.ErrKeyExists, func(error) error { return errors.New("create kek: invalid") })
		}
	}},
	{"a disabled key is made again", "a key is not made where there is one", "disabled, kek succeeded", func(m *memAdmin, s *AdminSubject) {
		good := s.Create
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			k, err := m.key("create", vault.KeyID{Name: name})
			return good(ctx, name, newVersion || err == nil && !k.Enabled)
		}
	}},
	{"a new version makes a key", "a new version is of a key that exists", "create a version of kek succeeded", func(m *memAdmin, s *AdminSubject) {
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			_, err := m.key("create", vault.KeyID{Name: name})
			return m.add(ctx, "create", name, nil, newVersion && err == nil)
		}
	}},
	{"ensure makes a version", "a key that is ensured is made once", "ensure made version", func(m *memAdmin, s *AdminSubject) {
		s.Ensure = func(ctx context.Context, name string) (vault.Key, error) {
			_, err := m.key("create", vault.KeyID{Name: name})
			return m.add(ctx, "create", name, nil, err == nil)
		}
	}},
	{"ensure answers with the first version", "a key that is ensured is made once", "the current version of kek is", func(m *memAdmin, s *AdminSubject) {
		good := s.Ensure
		var first vault.Key
		s.Ensure = func(ctx context.Context, name string) (vault.Key, error) {
			if first.Public == nil {
				return good(ctx, name)
			}
			return first, nil
		}
		s.Import = func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (_ vault.Key, err error) {
			if first, err = m.key("import", vault.KeyID{Name: name}); err != nil {
				return first, err
			}
			return m.add(ctx, "import", name, key, newVersion)
		}
	}},
	{"ensure enables a disabled key", "a key that is ensured is made once", "ensure enabled", func(m *memAdmin, s *AdminSubject) {
		good := s.Ensure
		s.Ensure = func(ctx context.Context, name string) (vault.Key, error) {
			k, err := good(ctx, name)
			if err != nil || k.Enabled {
				return k, err
			}
			on := true
			return m.update(ctx, k.ID, AdminUpdate{Enabled: &on})
		}
	}},
	{"ensure recovers a deleted key", "a key that is ensured is made once", "ensure the deleted kek succeeded", func(m *memAdmin, s *AdminSubject) {
		good := s.Ensure
		s.Ensure = func(ctx context.Context, name string) (vault.Key, error) {
			_ = m.setDeleted(ctx, "recover", name, false) // of one that is not deleted, it is an error
			return good(ctx, name)
		}
	}},
	{"a name that is taken gets no version", "a created version is the current one", "the old one", func(m *memAdmin, s *AdminSubject) {
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			if k, err := m.key("create", vault.KeyID{Name: name}); err == nil {
				return k, nil
			}
			return m.add(ctx, "create", name, nil, newVersion)
		}
	}},
	{"a rotation keeps the key pair", "a rotated key keeps its old versions", "old key pair", func(m *memAdmin, s *AdminSubject) {
		s.Rotate = func(ctx context.Context, name string) (vault.Key, error) {
			v, _, err := m.find("rotate", vault.KeyID{Name: name})
			if err != nil {
				return vault.Key{}, err
			}
			return m.add(ctx, "rotate", name, v.private, true)
		}
	}},
	{"a rotation drops the old version", "a rotated key keeps its old versions", "not found", func(m *memAdmin, s *AdminSubject) {
		rotate := s.Rotate
		s.Rotate = func(ctx context.Context, name string) (vault.Key, error) {
			old, err := m.key("rotate", vault.KeyID{Name: name})
			if err != nil {
				return old, err
			}
			m.DestroyVersion(old.ID)
			return rotate(ctx, name)
		}
	}},
	{"an import makes a key of its own", "an imported key is the one that was given", "not the one that was given", func(m *memAdmin, s *AdminSubject) {
		s.Import = func(ctx context.Context, name string, _ *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
			return m.add(ctx, "import", name, nil, newVersion)
		}
	}},
	{"an import does not look at the key", "an import of an unfit key leaves nothing", "succeeded", func(m *memAdmin, s *AdminSubject) {
		s.Import = func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
			return m.add(ctx, "import", name, key, newVersion)
		}
	}},
	{"a refused import leaves its name", "an import of an unfit key leaves nothing", "get kek succeeded", func(m *memAdmin, s *AdminSubject) {
		good := s.Import
		s.Import = func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
			k, err := good(ctx, name, key, newVersion)
			if err != nil {
				m.CreateKey(name)
			}
			return k, err
		}
	}},
	{"disable is of the current version", "one version is disabled and enabled", "", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			return m.update(ctx, id.Versionless(), u)
		}
	}},
	{"disable is answered and not done", "one version is disabled and enabled", "GetKey", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(_ context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			k, err := m.key("update", id)
			if u.Enabled != nil {
				k.Enabled = *u.Enabled
			}
			return k, err
		}
	}},
	{"an expiry is not kept", "dates are set", "the dates are", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			u.Expires = nil
			return m.update(ctx, id, u)
		}
	}},
	{"an unset is ignored", "dates are unset", "Expires was to be unset", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			if u.Expires != nil && u.Expires.IsZero() {
				u.Expires = nil
			}
			return m.update(ctx, id, u)
		}
	}},
	{"an unset of the activation is ignored", "dates are unset", "NotBefore was to be unset", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			if u.NotBefore != nil && u.NotBefore.IsZero() {
				u.NotBefore = nil
			}
			return m.update(ctx, id, u)
		}
	}},
	{"an unset unsets both", "dates are unset", "NotBefore was to stay", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			if u.Expires != nil && u.Expires.IsZero() {
				u.NotBefore = u.Expires
			}
			return m.update(ctx, id, u)
		}
	}},
	{"an update of a date enables", "what is not named in an update stays", "enabled a disabled version", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			if on := true; u.Enabled == nil {
				u.Enabled = &on
			}
			return m.update(ctx, id, u)
		}
	}},
	{"an enable unsets the expiry", "what is not named in an update stays", "changed Expires", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			if u.Expires == nil {
				u.Expires = new(time.Time)
			}
			return m.update(ctx, id, u)
		}
	}},
	{"delete does nothing", "a deleted key is gone", "succeeded", func(_ *memAdmin, s *AdminSubject) {
		s.Delete = func(context.Context, string) error { return nil }
	}},
	{"delete is for the current version", "a deleted key is gone", "succeeded", func(m *memAdmin, s *AdminSubject) {
		s.Delete = func(_ context.Context, name string) error { m.DestroyVersion(vault.KeyID{Name: name}); return nil }
	}},
	{"create revives a deleted key", "a deleted key's name is taken", "succeeded", func(m *memAdmin, s *AdminSubject) {
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			m.mu.Lock()
			if k := m.keys[name]; k != nil {
				k.deleted = false
			}
			m.mu.Unlock()
			return m.add(ctx, "create", name, nil, true)
		}
	}},
	{"recover enables", "a recovered key is as it was", "want an error", func(m *memAdmin, s *AdminSubject) {
		good := s.Recover
		s.Recover = func(ctx context.Context, name string) (vault.Key, error) {
			k, err := good(ctx, name)
			if err == nil {
				m.mu.Lock()
				for _, v := range m.keys[name].versions {
					v.enabled = true
				}
				m.mu.Unlock()
			}
			return k, err
		}
	}},
	{"purge does nothing", "a purge is for good", "want an error that matches", func(_ *memAdmin, s *AdminSubject) {
		s.Purge = func(context.Context, string) error { return nil }
	}},
	{"a purged name has its old versions", "a purge is for good", "succeeded", func(m *memAdmin, s *AdminSubject) {
		var kept []*memVersion
		good, imported := s.Purge, s.Import
		s.Purge = func(ctx context.Context, name string) error {
			m.mu.Lock()
			kept = m.keys[name].versions
			m.mu.Unlock()
			return good(ctx, name)
		}
		s.Import = func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
			k, err := imported(ctx, name, key, newVersion)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.keys[name].versions = append(slices.Clone(kept), m.keys[name].versions...)
			return k, err
		}
	}},
	{"purge deletes, too", "a key that is not deleted is not purged", "succeeded", func(m *memAdmin, s *AdminSubject) {
		s.Purge = func(_ context.Context, name string) error { m.Vault.Purge(name); return nil }
	}},
	{"purge refuses and purges", "a key that is not deleted is not purged", "not found", func(m *memAdmin, s *AdminSubject) {
		good := s.Purge
		s.Purge = func(ctx context.Context, name string) error {
			err := good(ctx, name)
			if err != nil {
				m.Vault.Purge(name)
			}
			return err
		}
	}},
	{"a backup has the current version alone", "a backup brings all versions back", "not found", func(m *memAdmin, s *AdminSubject) {
		good := s.Restore
		s.Restore = func(ctx context.Context, b []byte) (vault.Key, error) {
			k, err := good(ctx, b)
			if err == nil {
				m.mu.Lock()
				all := m.keys[k.ID.Name]
				all.versions = all.versions[len(all.versions)-1:]
				m.mu.Unlock()
			}
			return k, err
		}
	}},
	{"a restore enables what was disabled", "a backup brings all versions back", "disabled", func(m *memAdmin, s *AdminSubject) {
		good := s.Restore
		s.Restore = func(ctx context.Context, b []byte) (vault.Key, error) {
			k, err := good(ctx, b)
			if err == nil {
				m.mu.Lock()
				for _, v := range m.keys[k.ID.Name].versions {
					v.enabled = true
				}
				m.mu.Unlock()
			}
			return k, err
		}
	}},
	{"a restore replaces the key", "a restore replaces nothing", "succeeded", func(m *memAdmin, s *AdminSubject) {
		good := s.Restore
		s.Restore = func(ctx context.Context, b []byte) (vault.Key, error) {
			m.mu.Lock()
			clear(m.keys)
			m.mu.Unlock()
			return good(ctx, b)
		}
	}},
	{"a backup is not authenticated", "an altered backup is refused", "succeeded", func(m *memAdmin, s *AdminSubject) {
		var whole []byte
		backup, restore := s.Backup, s.Restore
		s.Backup = func(ctx context.Context, name string) (_ []byte, err error) {
			whole, err = backup(ctx, name)
			return whole, err
		}
		s.Restore = func(ctx context.Context, b []byte) (vault.Key, error) {
			if len(b) == len(whole) {
				b = whole
			}
			return restore(ctx, b)
		}
	}},
	{"a backup is in the clear", "a backup holds no key in the clear", "in the clear", func(m *memAdmin, s *AdminSubject) {
		s.Backup = func(context.Context, string) ([]byte, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.keys["kek"].versions[0].private.D.Bytes(), nil
		}
	}},
	{"a backup is in the clear as JSON", "a backup holds no key in the clear", "in the clear", func(m *memAdmin, s *AdminSubject) {
		s.Backup = func(context.Context, string) ([]byte, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return json.Marshal(m.keys["kek"].versions[0].private.Primes[0].Bytes())
		}
	}},
	{"a list has one page", "every key is listed", "listed 0 times", func(m *memAdmin, s *AdminSubject) {
		good := s.Keys
		s.Keys = func(ctx context.Context) ([]string, error) {
			all, err := good(ctx)
			return all[:min(len(all), 25)], err
		}
	}},
	{"a page is listed twice", "every key is listed", "listed 2 times", func(m *memAdmin, s *AdminSubject) {
		good := s.Keys
		s.Keys = func(ctx context.Context) ([]string, error) {
			all, err := good(ctx)
			return append(all, all[0]), err
		}
	}},
	{"deleted keys are listed with the others", "every deleted key is listed", "items are listed", func(m *memAdmin, s *AdminSubject) {
		s.Keys = func(context.Context) ([]string, error) { return append(m.names(false), m.names(true)...), nil }
	}},
	{"the last page of versions is left out", "every version is listed", "listed 0 times", func(m *memAdmin, s *AdminSubject) {
		good := s.Versions
		s.Versions = func(ctx context.Context, name string) ([]vault.KeyID, error) {
			all, err := good(ctx, name)
			return all[:len(all)/25*25], err
		}
	}},
	{"versions of an unknown key are none", "an unknown key is not found", "succeeded", func(m *memAdmin, s *AdminSubject) {
		good := s.Versions
		s.Versions = func(ctx context.Context, name string) ([]vault.KeyID, error) {
			all, _ := good(ctx, name)
			return all, nil
		}
	}},
	{"rotate makes what is not there", "an unknown key is not found", "succeeded", func(m *memAdmin, s *AdminSubject) { s.Rotate = s.Ensure }},
	{"delete of an unknown key is done", "an unknown key is not found", "succeeded", func(m *memAdmin, s *AdminSubject) {
		good := s.Delete
		s.Delete = func(ctx context.Context, name string) error {
			return turn(good(ctx, name), vault.ErrKeyNotFound, func(error) error { return nil })
		}
	}},
	{"the context is ignored", "an ended context changes nothing", "went on", func(m *memAdmin, s *AdminSubject) {
		s.Update = func(_ context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
			return m.update(context.Background(), id, u)
		}
	}},
	{"an ended context is a denial", "an ended context changes nothing", "no denial", func(m *memAdmin, s *AdminSubject) {
		good := s.Delete
		s.Delete = func(ctx context.Context, name string) error {
			if ctx.Err() != nil {
				return m.fail("delete", name, vault.ErrAccessDenied)
			}
			return good(ctx, name)
		}
	}},
	{"the change is made although its context had ended", "an ended context changes nothing", "the current version", func(m *memAdmin, s *AdminSubject) {
		good := s.Create
		s.Create = func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			if ctx.Err() != nil && newVersion {
				m.Rotate(name)
			}
			return good(ctx, name, newVersion)
		}
	}},
	{"of two changes one is lost", "changes at the same time are all made", "listed 0 times", func(m *memAdmin, s *AdminSubject) {
		good := s.Import
		s.Import = func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
			k, err := good(ctx, name, key, newVersion)
			m.mu.Lock()
			defer m.mu.Unlock()
			if all := m.keys[name]; len(all.versions) > 5 {
				all.versions = all.versions[1:]
			}
			return k, err
		}
	}},
	{"a list is without versions", "every version is listed", "listed 0 times", func(m *memAdmin, s *AdminSubject) {
		good := s.Versions
		s.Versions = func(ctx context.Context, name string) ([]vault.KeyID, error) {
			all, err := good(ctx, name)
			for i := range all {
				all[i] = all[i].Versionless()
			}
			return all, err
		}
	}},
	{"a refusal does not name the key", "an unknown key is not found", "does not name the key", func(m *memAdmin, s *AdminSubject) {
		good := s.Rotate
		s.Rotate = func(ctx context.Context, name string) (vault.Key, error) {
			k, err := good(ctx, name)
			return k, turn(err, vault.ErrKeyNotFound, func(error) error { return vault.ErrKeyNotFound })
		}
	}},
}
