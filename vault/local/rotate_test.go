package local_test

import (
	"crypto/rsa"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// current returns the current version, asked for as a store asks.
func (r *rig) current(v vault.Vault, name string) vault.Key {
	r.t.Helper()
	k, err := v.GetKey(r.t.Context(), vault.KeyID{Name: name})
	require.NoError(r.t, err)
	return k
}

func (r *rig) policy(name string, p local.RotationPolicy) {
	r.t.Helper()
	require.NoError(r.t, r.SetRotationPolicy(r.t.Context(), name, p))
}

func kinds(events []local.Event) []local.EventKind {
	var ks []local.EventKind
	for _, e := range events {
		ks = append(ks, e.Kind)
	}
	return ks
}

func TestRotateKey(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	w, secret := r.wrap(r, id)
	_, err := r.UpdateKey(t.Context(), id, local.Update{Operations: []vault.Operation{vault.OpUnwrapKey, vault.OpWrapKey}})
	require.NoError(t, err)
	k, err := r.RotateKey(t.Context(), "kek")
	require.NoError(t, err)
	require.Equal(t, []vault.Operation{vault.OpUnwrapKey, vault.OpWrapKey}, k.Operations, "what a key is for stays")
	require.Equal(t, k, r.current(r, "kek"))
	r.unwraps(r, w, secret)
	crossed := vault.Wrapped{KeyID: k.ID, Ciphertext: w.Ciphertext}
	_, err = r.UnwrapKey(t.Context(), crossed)
	require.ErrorIs(t, err, vault.ErrBadCiphertext)
	_, err = r.RotateKey(t.Context(), "nothing")
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
}

// A policy acts when it is due, once, also after the vault was closed for long; what
// was wrapped before stays readable.
func TestRotateAfterSomeTime(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	w, secret := r.wrap(r, id)
	r.policy("kek", local.RotationPolicy{RotateAfter: 10 * day})

	r.clock.Advance(10*day - time.Second)
	require.Equal(t, id, r.current(r, "kek").ID)
	r.clock.Advance(time.Second)
	require.Equal(t, id, mustGet(t, r, id).ID, "who asks for a version is given it")
	second := r.current(r, "kek").ID
	require.NotEqual(t, id, second)
	require.Equal(t, second, r.current(r, "kek").ID)
	require.Equal(t, []local.EventKind{local.KeyRotated}, kinds(r.takeEvents()))
	r.unwraps(r, w, secret)

	require.NoError(t, r.Close())
	r.clock.Advance(100 * day)
	again := r.another()
	w3, _ := r.wrap(again, vault.KeyID{Name: "kek"})
	require.NotEqual(t, second, w3.KeyID)
	versions, err := again.Versions(t.Context(), "kek")
	require.NoError(t, err)
	require.Len(t, versions, 3, "one rotation, however much time went by")
	r.unwraps(again, w, secret)
}

func mustGet(t *testing.T, v vault.Vault, id vault.KeyID) vault.Key {
	t.Helper()
	k, err := v.GetKey(t.Context(), id)
	require.NoError(t, err)
	return k
}

func TestRotateBeforeExpiry(t *testing.T) {
	r := newRig(t)
	k, err := r.CreateKey(t.Context(), "kek", &local.KeyOptions{
		Expires: start.Add(20 * day),
		Policy:  &local.RotationPolicy{RotateBeforeExpiry: 5 * day, ExpiresAfter: 30 * day, NotifyBefore: -1},
	})
	require.NoError(t, err)
	r.clock.Advance(15*day - time.Second)
	require.Equal(t, k.ID, r.current(r, "kek").ID)
	r.clock.Advance(time.Second)
	next := r.current(r, "kek")
	require.NotEqual(t, k.ID, next.ID)
	require.Equal(t, start.Add(45*day), next.Expires)
	require.Equal(t, []local.EventKind{local.KeyRotated}, kinds(r.takeEvents()))
	keys, err := r.ListKeys(t.Context())
	require.NoError(t, err)
	require.Equal(t, local.RotationPolicy{RotateBeforeExpiry: 5 * day, ExpiresAfter: 30 * day, NotifyBefore: -time.Second}, keys[0].Policy)
}

// What an administrator took away does not come back by itself.
func TestPolicyLeavesAKeyThatWasTakenAway(t *testing.T) {
	no := false
	past := start.Add(-time.Hour)
	for what, take := range map[string]func(r *rig, id vault.KeyID) error{
		"disabled": func(r *rig, id vault.KeyID) error {
			_, err := r.UpdateKey(t.Context(), id, local.Update{Enabled: &no})
			return err
		},
		"expired": func(r *rig, id vault.KeyID) error {
			_, err := r.UpdateKey(t.Context(), id, local.Update{Expires: &past})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			id := r.create("kek")
			r.policy("kek", local.RotationPolicy{RotateAfter: day, RotateBeforeExpiry: day})
			require.NoError(t, take(r, id))
			r.clock.Advance(2 * day)
			require.Equal(t, id, r.current(r, "kek").ID)
			rotated, err := r.Maintain(t.Context())
			require.NoError(t, err)
			require.Empty(t, rotated)
			require.Equal(t, id, r.current(r, "kek").ID)
		})
	}
}

func TestNoticeOfExpiry(t *testing.T) {
	r := newRig(t)
	var log strings.Builder
	logged, err := local.Open(r.dir, passphrase, &local.Options{InsecureKDF: true, Clock: r.clock, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	k, err := r.CreateKey(t.Context(), "kek", &local.KeyOptions{Expires: start.Add(40 * day)})
	require.NoError(t, err)
	var left []time.Duration
	for range 41 {
		r.current(r, "kek")
		r.current(r, "kek") // twice a day, and one notice
		for _, e := range r.takeEvents() {
			require.Equal(t, local.KeyNearExpiry, e.Kind)
			require.Equal(t, k.ID, e.Key)
			require.Equal(t, r.clock.Now(), e.Time)
			left = append(left, e.Left)
		}
		r.clock.Advance(day)
	}
	require.Equal(t, []time.Duration{30 * day, 7 * day, day}, left)

	r.clock.Step(-10 * day)
	r.current(logged, "kek")
	require.Contains(t, log.String(), `level=WARN msg="blockseal vault: KeyNearExpiry" key=`+k.ID.String())
	require.Contains(t, log.String(), "left=216h0m0s")
	require.NoError(t, logged.Close())

	later := start.Add(100 * day)
	_, err = r.UpdateKey(t.Context(), k.ID, local.Update{Expires: &later})
	require.NoError(t, err)
	r.takeEvents()
	r.clock.Advance(67 * day)
	r.policy("kek", local.RotationPolicy{NotifyBefore: 3 * day})
	r.current(r, "kek")
	require.Equal(t, []local.EventKind{local.KeyNearExpiry}, kinds(r.takeEvents()), "another expiry is noticed anew, by the policy's time")
}

// Of many handles that notice together, one rotates.
func TestOneOfManyRotates(t *testing.T) {
	r := newRig(t)
	r.create("kek")
	r.policy("kek", local.RotationPolicy{RotateAfter: day})
	r.clock.Advance(day)
	vaults := []*local.Vault{r.Vault, r.another(), r.another(), r.another()}
	ids := make(chan vault.KeyID, 4*len(vaults))
	for _, v := range vaults {
		for range 4 {
			go func() {
				k, err := v.As("x").GetKey(t.Context(), vault.KeyID{Name: "kek"})
				if !errors.Is(err, vault.ErrAccessDenied) || k.Public != nil {
					t.Errorf("an identity without grants: %v", err)
				}
				k, err = v.GetKey(t.Context(), vault.KeyID{Name: "kek"})
				if err != nil {
					t.Errorf("get: %v", err)
				}
				ids <- k.ID
			}()
		}
	}
	seen := map[vault.KeyID]bool{}
	for range cap(ids) {
		seen[<-ids] = true
	}
	versions, err := r.Versions(t.Context(), "kek")
	require.NoError(t, err)
	require.Len(t, versions, 2)
	require.Contains(t, seen, versions[1].ID)
}

// A rotation that fails does not take the key away, is an event, and is tried again
// a minute later, not at every call.
func TestRotationThatFails(t *testing.T) {
	r := newRig(t)
	tries := 0
	o := local.WithGenerate(local.Options{InsecureKDF: true, Clock: r.clock, OnEvent: func(e local.Event) { r.events = append(r.events, e) }},
		func() (*rsa.PrivateKey, error) { tries++; return nil, errors.New("no entropy") })
	v, err := local.Open(r.dir, passphrase, o)
	require.NoError(t, err)
	id := r.create("kek")
	r.policy("kek", local.RotationPolicy{RotateAfter: day})
	r.clock.Advance(day)
	for range 5 {
		require.Equal(t, id, r.current(v, "kek").ID)
	}
	require.Equal(t, 1, tries)
	events := r.takeEvents()
	require.Equal(t, []local.EventKind{local.RotationFailed}, kinds(events))
	require.ErrorContains(t, events[0].Err, "no entropy")
	r.clock.Advance(time.Minute)
	require.Equal(t, id, r.current(v, "kek").ID)
	require.Equal(t, 2, tries)
	_, err = v.Maintain(t.Context())
	require.ErrorContains(t, err, "no entropy")
	require.NoError(t, v.Close())
	require.NotEqual(t, id, r.current(r, "kek").ID, "another handle can")
}

func TestMaintain(t *testing.T) {
	r := newRigWith(t, local.Options{RetentionDays: 7})
	ctx := t.Context()
	due, undue := r.create("due"), r.create("undue")
	r.policy("due", local.RotationPolicy{RotateAfter: 8 * day})
	r.policy("undue", local.RotationPolicy{RotateAfter: 9 * day})
	r.create("gone")
	_, err := r.DeleteKey(ctx, "gone")
	require.NoError(t, err)
	before, err := r.Info(ctx)
	require.NoError(t, err)
	rotated, err := r.Maintain(ctx)
	require.NoError(t, err)
	require.Empty(t, rotated)
	after, err := r.Info(ctx)
	require.NoError(t, err)
	require.Equal(t, before.Generation, after.Generation, "nothing to do writes nothing")

	r.maintain(6)
	r.clock.Advance(2 * day)
	r.takeEvents()
	rotated, err = r.Maintain(ctx)
	require.NoError(t, err)
	require.Equal(t, []vault.KeyID{r.current(r, "due").ID}, rotated)
	require.NotEqual(t, due, rotated[0])
	require.Equal(t, undue, r.current(r, "undue").ID)
	require.ElementsMatch(t, []local.EventKind{local.KeyPurged, local.KeyRotated}, kinds(r.takeEvents()))

	_, err = r.Administer("nobody").Maintain(ctx)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
}
