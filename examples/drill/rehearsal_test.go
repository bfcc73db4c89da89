package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// newRig is a drill on a simulated clock with the default lease.
func newRig(t *testing.T) *drill {
	d, err := newDrill(t.Context(), t.TempDir(), options{lease: keyring.DefaultLease, check: keyring.DefaultCheckEvery}, &bytes.Buffer{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.close()) })
	return d
}

func (d *drill) named(t *testing.T, name string) rehearsal {
	for _, r := range d.rehearsals() {
		if r.name == name {
			return r
		}
	}
	require.FailNow(t, "there is no rehearsal "+name)
	return rehearsal{}
}

// What the customer is promised, with the default lease of ten minutes and a check
// every minute.
func TestRehearsals(t *testing.T) {
	t.Parallel()
	d := newRig(t)
	all := d.rehearsals()
	require.Len(t, all, 7)
	for _, r := range all {
		t.Run(r.name, func(t *testing.T) {
			res, err := d.rehearse(t.Context(), r)
			require.NoError(t, err)
			require.Empty(t, d.load.violations)

			slack := d.time.slack()
			require.LessOrEqual(t, res.inaccessible, r.within+slack)
			require.LessOrEqual(t, res.inaccessible, 10*time.Minute+slack)
			require.LessOrEqual(t, res.recovered, time.Minute+slack)
			require.ErrorIs(t, res.reason, r.kind)
			require.Positive(t, res.refused[read])
			require.Positive(t, res.refused[write])
			require.Positive(t, res.readBack)
			if r.kind == vault.ErrUnavailable {
				require.Greater(t, res.inaccessible, 8*time.Minute, "it serves while the lease lasts")
				require.Positive(t, res.degraded)
			} else {
				require.Zero(t, res.degraded, "a refusal locks at once")
			}
		})
	}
}

// leaky is a store that goes on serving from a cache of its own.
type leaky struct {
	storeTarget
	mu    sync.Mutex
	cache map[string][]byte
}

func (s *leaky) Get(ctx context.Context, id, dst []byte) ([]byte, error) {
	data, err := s.storeTarget.Get(ctx, id, dst)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.cache[string(id)] = data
	} else if old, ok := s.cache[string(id)]; ok {
		return old, nil
	}
	return data, err
}

// hasty is a store that acknowledges before it knows.
type hasty struct{ storeTarget }

func (s hasty) Put(ctx context.Context, id, data []byte) error {
	s.storeTarget.Put(ctx, id, data)
	return nil
}

// forgetful is a store that loses what it acknowledged.
type forgetful struct{ storeTarget }

func (s forgetful) Put(ctx context.Context, id, data []byte) error {
	if err := s.storeTarget.Put(ctx, id, data); err != nil {
		return err
	}
	return s.Delete(ctx, id)
}

// garbled is a store that returns what nobody wrote.
type garbled struct{ storeTarget }

func (s garbled) Get(ctx context.Context, id, dst []byte) ([]byte, error) {
	data, err := s.storeTarget.Get(ctx, id, dst)
	if err == nil {
		data[len(data)-1] ^= 1
	}
	return data, err
}

// confused is a store whose refusals say something else.
type confused struct{ storeTarget }

func (s confused) Put(ctx context.Context, id, data []byte) error {
	if err := s.storeTarget.Put(ctx, id, data); err != nil {
		return errors.New("out of paper")
	}
	return nil
}

// A drill notices a store that breaks its promises, and ends with an error.
func TestViolationsAreNoticed(t *testing.T) {
	for _, c := range []struct {
		name   string
		broken func(storeTarget) target
		text   string
	}{
		{"a read while Inaccessible", func(s storeTarget) target { return &leaky{storeTarget: s, cache: map[string][]byte{}} },
			"succeeded while the store was Inaccessible"},
		{"a write while Inaccessible", func(s storeTarget) target { return hasty{s} }, "succeeded while the store was Inaccessible"},
		{"a lost write", func(s storeTarget) target { return forgetful{s} }, "was acknowledged, and "},
		{"other data", func(s storeTarget) target { return garbled{s} }, "is not as it was acknowledged last"},
		{"another error", func(s storeTarget) target { return confused{s} }, "not because the store is Inaccessible: out of paper"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newRig(t)
			d.load.store = c.broken(storeTarget{d.store})
			_, err := d.rehearse(t.Context(), d.named(t, "key disabled"))
			require.NoError(t, err)
			var out bytes.Buffer
			require.ErrorContains(t, d.load.verdict(&out), " violations of what the store promises")
			require.Contains(t, out.String(), "VIOLATION  ")
			require.Contains(t, out.String(), c.text)
		})
	}
}

// A store that stays accessible, goes late, for another reason, or does not come
// back is noticed too.
func TestLateIsNoticed(t *testing.T) {
	violations := func(d *drill) string { return fmt.Sprint(d.load.violations) }

	t.Run("never", func(t *testing.T) {
		t.Parallel()
		d := newRig(t)
		r := d.named(t, "key disabled")
		r.take, r.give = d.time.now, func() {}
		res, err := d.rehearse(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, "never", res.after())
		require.Contains(t, violations(d), "key disabled: it should be Inaccessible after 1m0s at most, and the store is Available")
	})
	t.Run("late", func(t *testing.T) {
		t.Parallel()
		d := newRig(t)
		r := d.named(t, "network cut")
		r.within = 5 * time.Minute
		_, err := d.rehearse(t.Context(), r)
		require.NoError(t, err)
		require.Contains(t, violations(d), "network cut: it should be Inaccessible after 5m0s at most, and the store is Degraded")
	})
	t.Run("another reason", func(t *testing.T) {
		t.Parallel()
		d := newRig(t)
		r := d.named(t, "wrapKey revoked")
		r.op = vault.OpUnwrapKey
		_, err := d.rehearse(t.Context(), r)
		require.NoError(t, err)
		require.Contains(t, violations(d), "wrapKey revoked: the state gives another reason: vault: wrapKey ")
	})
	t.Run("for good", func(t *testing.T) {
		t.Parallel()
		d := newRig(t)
		r := d.named(t, "key deleted")
		r.give = func() {}
		_, err := d.rehearse(t.Context(), r)
		require.ErrorContains(t, err, "the store does not come back: Inaccessible")
		require.Contains(t, violations(d), "given back: it should be Available after 1m0s at most")
	})
}

// An operation is held against the store only if access cannot have come back.
func TestSucceeded(t *testing.T) {
	inaccessible, available := keyring.Inaccessible, keyring.Available
	for _, c := range []struct {
		name     string
		st       stance
		cutAfter uint64
		bad      bool
	}{
		{"all is well", stance{0, available}, 0, false},
		{"not locked yet", stance{1, available}, 1, false},
		{"locked", stance{1, inaccessible}, 1, true},
		{"locked, and being given back meanwhile", stance{1, inaccessible}, 2, false},
		{"locked, given back and taken again meanwhile", stance{1, inaccessible}, 3, false},
		{"given back and not recovered yet", stance{2, inaccessible}, 2, false},
	} {
		l := &load{}
		l.cut.Store(c.cutAfter)
		(&worker{load: l}).succeeded(read, c.st, "get")
		require.Equal(t, c.bad, len(l.violations) == 1, c.name)
	}
}

// Only so many violations are told one by one; all are counted.
func TestManyViolations(t *testing.T) {
	l := &load{}
	for i := range shown + 5 {
		l.violate("number %d", i)
	}
	var out bytes.Buffer
	require.EqualError(t, l.verdict(&out), "25 violations of what the store promises")
	require.Contains(t, out.String(), "number 19\n")
	require.NotContains(t, out.String(), "number 20")
}
