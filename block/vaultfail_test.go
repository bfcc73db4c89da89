package block_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// vaultFailure is a way in which one call to the vault goes wrong, and what the
// operation's error says then.
type vaultFailure struct {
	name  string
	fault vaulttest.Fault
	match func(error) bool
}

func vaultFailures() []vaultFailure {
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	return []vaultFailure{
		{"denied", vaulttest.Fault{Err: vaulttest.AccessDeniedByRBAC()}, is(vault.ErrAccessDenied)},
		{"unavailable", vaulttest.Fault{Err: vaulttest.Unavailable()}, is(vault.ErrUnavailable)},
		{"hangs", vaulttest.Fault{Hang: true}, is(vault.ErrUnavailable)},
		{"answers wrongly", vaulttest.Fault{
			Plaintext:     bytes.Repeat([]byte{7}, 16),
			MutateKey:     func(k *vault.Key) { k.Enabled = false },
			MutateWrapped: func(w *vault.Wrapped) { w.Ciphertext = bytes.Repeat([]byte{7}, 256) },
		}, func(err error) bool {
			// Of the wrap that a check tries nothing is kept, so that it does no harm.
			return err == nil || vault.Kind(err) != nil || errors.Is(err, block.ErrCorrupt)
		}},
		// As many bytes as there should be, and others.
		{"answers another secret", vaulttest.Fault{Plaintext: bytes.Repeat([]byte{7}, 32)}, func(err error) bool {
			return err == nil || vault.Kind(err) != nil || errors.Is(err, block.ErrCorrupt)
		}},
	}
}

// vaultRotation is a rotation that calls the vault.
type vaultRotation struct {
	name    string
	byKEK   bool
	blocks  int
	calls   int  // to the vault
	asks    bool // the calls are questions, and without an answer it does the same
	prepare func(f *failRig)
	run     func(f *failRig) error
	done    func(f *failRig)
}

// failRig is a store with some blocks and a vault in which one call goes wrong.
type failRig struct {
	*rig
	s     *block.Store
	other *kek.KEK // another key of the vault
	want  map[string]string

	mu     sync.Mutex
	copies []error // why copies were not rewrapped
}

func newFailRig(t *testing.T, r vaultRotation) *failRig {
	f := &failRig{rig: newRig(t), want: map[string]string{}}
	f.other = kek.New(f.vault, f.vault.CreateKey("other").Versionless())
	f.opts.ManualRewrap, f.opts.VaultRate = true, 1<<30
	k := &f.opts.Keyring
	k.Lease, k.AllowLongLease, k.CheckEvery = 100*time.Hour, true, 50*time.Hour // no checks of its own
	k.DEKCache, k.OtherKEKs = -1, []*kek.KEK{f.kek, f.other}
	k.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.CopyKEKNotChanged {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.copies = append(f.copies, e.Err)
		}
	}
	if r.byKEK {
		k.Wrapping = keyring.ByKEK
	}
	f.s = f.reopen()
	for i := range r.blocks {
		id := fmt.Sprint(i)
		f.want[id] = "data " + id
		require.NoError(t, f.s.Put(f.ctx, []byte(id), []byte(f.want[id])))
	}
	return f
}

func (f *failRig) reopen() *block.Store {
	s, err := block.Open(f.ctx, f.dir, f.kek, &f.opts)
	if errors.Is(err, keyring.ErrWrongKEK) {
		s, err = block.Open(f.ctx, f.dir, f.other, &f.opts)
	}
	require.NoError(f.t, err)
	f.t.Cleanup(func() { s.Close() })
	return s
}

// readsAll checks that nothing was lost.
func (f *failRig) readsAll() {
	f.t.Helper()
	require.NoError(f.t, f.s.Revalidate(f.ctx))
	rep, err := f.s.Verify(f.ctx, nil)
	require.NoError(f.t, err)
	require.EqualValues(f.t, len(f.want), rep.Blocks)
	for id, data := range f.want {
		got, err := f.s.Get(f.ctx, []byte(id), nil)
		require.NoError(f.t, err)
		require.Equal(f.t, data, string(got))
	}
}

// fail runs a rotation in which the n-th vault call goes wrong, and reports whether
// there was an n-th call.
func (f *failRig) fail(n int, r vaultRotation, way vaultFailure) bool {
	fault := way.fault
	fault.Nth = n
	remove := f.vault.Inject(fault)
	f.vault.ResetCalls()
	result := make(chan error, 1)
	go func() { result <- r.run(f) }()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-result:
			waiting = false
		case <-time.After(time.Millisecond):
			if f.vault.Waiting() > 0 {
				f.clock.Advance(keyring.DefaultVaultTimeout)
				// Once is enough, and thirty times would be the whole lease.
				eventually(f.t, func() bool { return f.vault.Waiting() == 0 }, "the call is given up")
			}
		}
	}
	reached := f.vault.Calls().Total() >= n
	remove()
	if !reached || r.asks {
		require.NoError(f.t, err)
		return reached
	}
	if err == nil && !way.match(nil) { // it was about a copy, which is no error of the rotation's
		var copies []error
		require.Eventually(f.t, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			copies = f.copies
			return len(copies) > 0
		}, time.Minute, time.Millisecond, "the failure of call %d went unnoticed", n)
		err = copies[0]
	}
	require.True(f.t, way.match(err), "call %d: %v", n, err)
	return true
}

func vaultRotations() []vaultRotation {
	only := func(f *failRig, name string) {
		uses, err := f.s.KeyUsage(f.ctx)
		require.NoError(f.t, err)
		require.Len(f.t, uses, 1)
		require.Equal(f.t, name, uses[0].Key.Name)
		require.Equal(f.t, f.s.State().KEK, uses[0].Key)
	}
	checkpoint := func(f *failRig) { require.NoError(f.t, f.s.Checkpoint(f.ctx, "copy")) }
	return []vaultRotation{
		{name: "RotateKEK", blocks: 3, calls: 9,
			prepare: func(f *failRig) { checkpoint(f); f.vault.Rotate("customer") },
			run:     func(f *failRig) error { return f.s.RotateKEK(f.ctx) },
			done: func(f *failRig) {
				only(f, "customer")
				require.NotEqual(f.t, f.key, f.s.State().KEK)
			}},
		{name: "ChangeKEK", blocks: 3, calls: 9,
			prepare: checkpoint,
			run:     func(f *failRig) error { return f.s.ChangeKEK(f.ctx, f.other) },
			done:    func(f *failRig) { only(f, "other") }},
		{name: "ChangeKEK with a copy whose DEKs are wrapped by the KEK", blocks: 1, calls: 15, byKEK: true,
			prepare: checkpoint,
			run: func(f *failRig) error {
				return errors.Join(f.s.ChangeKEK(f.ctx, f.other), f.s.RewrapDEKs(f.ctx, nil))
			},
			done: func(f *failRig) { only(f, "other") }},
		{name: "Rekey", blocks: 2, calls: 6, byKEK: true,
			prepare: func(*failRig) {},
			run:     func(f *failRig) error { return f.s.Rekey(f.ctx, block.Range{}, nil) },
			done:    func(f *failRig) { only(f, "customer") }},
		{name: "RewrapDEKs", blocks: 2, calls: 6, byKEK: true,
			prepare: func(f *failRig) { require.NoError(f.t, f.s.ChangeKEK(f.ctx, f.other)) },
			run:     func(f *failRig) error { return f.s.RewrapDEKs(f.ctx, nil) },
			done:    func(f *failRig) { only(f, "other") }},
		{name: "ChangeCheckpointKEK", blocks: 2, calls: 12, byKEK: true,
			prepare: checkpoint,
			run: func(f *failRig) error {
				return block.ChangeCheckpointKEK(f.ctx, "copy", f.kek, f.other, &f.opts)
			},
			done: func(f *failRig) {
				o := f.opts
				o.Keyring.OtherKEKs = nil
				c, err := block.Open(f.ctx, "copy", f.other, &o)
				require.NoError(f.t, err)
				defer c.Close()
				require.NoError(f.t, c.Revalidate(f.ctx))
				rep, err := c.Verify(f.ctx, nil)
				require.NoError(f.t, err)
				require.EqualValues(f.t, len(f.want), rep.Blocks)
			}},
		{name: "RotateEpoch", blocks: 2, calls: 0, byKEK: true,
			prepare: func(*failRig) {},
			run:     func(f *failRig) error { return f.s.RotateEpoch(f.ctx, nil) },
			done:    func(f *failRig) { require.Equal(f.t, 1, f.s.State().Epochs) }},
		{name: "Erase", blocks: 2, calls: 1, byKEK: true, asks: true,
			prepare: func(*failRig) {},
			run:     func(f *failRig) error { _, err := f.s.Erase(f.ctx, nil); return err },
			done:    func(f *failRig) { require.Equal(f.t, 1, f.s.State().Epochs) }},
	}
}

// Whichever call to the vault goes wrong during a rotation, and however: the error
// says so, nothing is lost, and the rotation completes when it is called again.
func TestVaultFailsDuringRotation(t *testing.T) {
	for _, r := range vaultRotations() {
		t.Run(r.name, func(t *testing.T) {
			for _, way := range vaultFailures() {
				t.Run(way.name, func(t *testing.T) {
					n := 1
					for ; ; n++ {
						f := newFailRig(t, r)
						r.prepare(f)
						failed := f.fail(n, r, way)
						f.readsAll()
						if failed {
							require.NoError(t, r.run(f), "after call %d", n)
							f.readsAll()
						}
						r.done(f)
						require.NoError(t, f.s.Close())
						f.s = f.reopen()
						f.readsAll()
						require.NoError(t, f.s.Close())
						if !failed {
							break
						}
					}
					require.Equal(t, r.calls, n-1, "vault calls of the rotation")
				})
			}
		})
	}
}
