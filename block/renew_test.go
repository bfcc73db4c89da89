package block_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// newAgeRig is a rig whose access outlives the hours that its clock is moved by.
func newAgeRig(t *testing.T) *rig {
	g := newRig(t)
	k := &g.opts.Keyring
	k.Lease, k.AllowLongLease, k.CheckEvery = 10_000*time.Hour, true, 5_000*time.Hour
	k.VaultTimeout = k.Lease // the clock moves by hours while the vault is at work
	g.opts.VaultRate = 1 << 30
	return g
}

// putMany puts n blocks whose ids begin with a name.
func (g *rig) putMany(s *block.Store, name string, n int) {
	for i := range n {
		require.NoError(g.t, s.Put(g.ctx, fmt.Appendf(nil, "%s %03d", name, i), fmt.Appendf(nil, "data of %s %d", name, i)))
	}
}

// pass moves the clock by whole hours, one after the other, as it goes in life.
func (g *rig) pass(hours int) {
	for range hours {
		g.clock.Advance(time.Hour)
		time.Sleep(time.Millisecond) // for what the clock has started
	}
}

// replaced returns the ids of which the DEK record is another one than before.
func replaced(s *block.Store, before map[string]string) (ids []string) {
	for id, record := range s.Records() {
		if record != before[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

func eventually(t testing.TB, cond func() bool, msg string) {
	t.Helper()
	require.Eventually(t, cond, time.Minute, time.Millisecond, msg)
}

// soon waits for what the store does by itself within a minute or two. The clock must not run
// away from a store that is slow: after ten minutes it moves a hundred times as slowly, and so by
// less than half an hour in all.
func (g *rig) soon(cond func() bool, msg string) {
	g.t.Helper()
	looks := 0
	require.Eventually(g.t, func() bool {
		if cond() {
			return true
		}
		if looks++; looks <= 600 || looks%100 == 0 {
			g.clock.Advance(time.Second)
		}
		return false
	}, 2*time.Minute, time.Millisecond, msg)
}

// DEKs that are older than RekeyAfter are replaced by themselves, and younger ones
// stay; the policy is in the keyring document and outlives a reopen without options.
func TestRekeyAfter(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newAgeRig(t)
			g.opts.Keyring.Wrapping = w
			g.opts.Keyring.RekeyAfter = 100 * time.Hour
			s := g.open()
			n := 200
			if w == keyring.ByKEK {
				n = 5
			}
			g.putMany(s, "old", n)
			require.NoError(t, s.Close())

			g.opts.Keyring.RekeyAfter, g.opts.Keyring.Wrapping = 0, 0
			s = g.open()
			require.Equal(t, 100*time.Hour, s.Policy().RekeyAfter)
			for epoch := range 2 { // which begins when it is due, and not when the store comes to it
				g.pass(25)
				g.soon(func() bool { return s.State().Epoch == uint32(epoch+2) }, "an epoch begins at least four times in RekeyAfter")
			}
			g.pass(10)
			g.putMany(s, "young", 3)
			before := s.Records()
			g.pass(39)
			time.Sleep(20 * time.Millisecond) // time to do what it must not
			require.Empty(t, replaced(s, before), "nothing is due after 99 hours")
			g.pass(2)
			g.soon(func() bool { return len(replaced(s, before)) == n }, "what is too old is replaced")
			for _, id := range replaced(s, before) {
				require.Contains(t, id, "old")
			}
			eventually(t, func() bool {
				rep, err := s.Verify(g.ctx, nil)
				require.NoError(t, err)
				return rep.DEKs[1] == 0 && rep.Blocks == uint64(n+3)
			}, "no record is under the first epoch")
			got, err := s.Get(g.ctx, []byte("old 001"), nil)
			require.NoError(t, err)
			require.Equal(t, "data of old 1", string(got))
		})
	}
}

// What RotateEpoch rewraps keeps its age: a new epoch makes no DEK younger.
func TestRekeyAfterRotateEpoch(t *testing.T) {
	g := newAgeRig(t)
	g.opts.Keyring.RekeyAfter = 100 * time.Hour
	s := g.open()
	g.putMany(s, "old", 10)
	for range 3 {
		g.pass(30)
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
	}
	require.NoError(t, s.Close()) // the age is remembered
	s = g.open()
	before := s.Records()
	g.pass(9)
	time.Sleep(20 * time.Millisecond)
	require.Empty(t, replaced(s, before))
	g.pass(2)
	g.soon(func() bool { return len(replaced(s, before)) == 10 }, "101 hours old, under an epoch of 11 hours")

	// And once: from here on they are young.
	g.soon(func() bool { return s.State().Epochs == 1 }, "what nothing names is dropped")
	before = s.Records()
	g.pass(60)
	time.Sleep(20 * time.Millisecond)
	require.Empty(t, replaced(s, before))
}

// What RewrapDEKs moves to another KEK keeps its age too.
func TestRekeyAfterRewrap(t *testing.T) {
	g := newAgeRig(t)
	g.opts.Keyring.Wrapping, g.opts.Keyring.RekeyAfter = keyring.ByKEK, 100*time.Hour
	s := g.open()
	g.putMany(s, "old", 4)
	g.pass(60)
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	rep, err := s.Verify(g.ctx, nil)
	require.NoError(t, err)
	require.Zero(t, rep.DEKs[1], "the records are under a younger epoch")
	before := s.Records()
	g.pass(42)
	g.soon(func() bool { return len(replaced(s, before)) == 4 }, "102 hours old")
}

// A renewal goes at Options.RewriteRate, lets another operation have its turn
// meanwhile, and goes on after a restart where it was.
func TestRekeyAfterIsPacedAndResumed(t *testing.T) {
	g := newAgeRig(t)
	g.opts.Keyring.RekeyAfter = 100 * time.Hour
	g.opts.RewriteRate = 800
	clock := g.watch()
	s := g.open()
	const n = 100
	for i := range n {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), make([]byte, 100)))
	}
	before := s.Records()
	s.SetSteps(10, 1)
	g.pass(100)
	eventually(t, func() bool {
		if len(s.Stats().Running) == 0 {
			g.clock.Advance(50 * time.Millisecond) // too little for two steps
		}
		return len(replaced(s, before)) >= 10
	}, "the first step")
	// A step is ten blocks of 100 bytes.
	const pace = 1250 * time.Millisecond
	clock.waited(t, pace, 1)
	g.clock.Advance(pace) // the clock was moved when this wait began: only the next ones are exact
	eventually(t, func() bool { return len(replaced(s, before)) == 20 }, "the second step")
	for done := 20; done < 50; done += 10 {
		clock.waited(t, pace, done/10)
		g.clock.Advance(pace - 1)
		require.Len(t, replaced(s, before), done)
		g.clock.Advance(1)
		eventually(t, func() bool { return len(replaced(s, before)) == done+10 }, "the next step")
	}
	require.NoError(t, s.Rekey(g.ctx, block.Range{Start: []byte("000"), End: []byte("000")}, nil), "another operation has its turn")

	half, epochs := s.Records(), s.State().Epochs
	require.NoError(t, s.Close())
	in, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.NoError(t, err)
	require.Equal(t, []string{"renew"}, in.Unfinished)
	g.opts.RewriteRate = 0
	s = g.open()
	done := len(replaced(s, before))
	eventually(t, func() bool { return len(replaced(s, before)) == n }, "it goes on")
	again := 0
	for id, record := range s.Records() {
		if half[id] != before[id] && half[id] != record {
			again++
		}
	}
	require.LessOrEqual(t, again, 10, "what was done (%d) is not done again, but for a step", done)
	g.soon(func() bool { return s.State().Epochs < epochs }, "the epoch of before is dropped")
}

// A block that cannot be opened stays as it is, and does not keep the others from
// being renewed; nor is the epoch dropped that would be needed to mend it.
func TestRekeyAfterLeavesDamageAlone(t *testing.T) {
	g := newAgeRig(t)
	g.opts.Keyring.RekeyAfter = 100 * time.Hour
	failed := make(chan error, 100)
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.Progressed && e.Err != nil {
			select {
			case failed <- e.Err:
			default:
			}
		}
	}
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	defer s.Close()
	g.putMany(s, "old", 10)
	key := append([]byte{3, 0, 0, 0, 0}, "old 004"...)
	good := s.Engine(key)
	bad := bytes.Clone(good)
	bad[20] ^= 1
	s.SetEngine(key, bad)
	before := s.Records()
	g.pass(101)
	g.soon(func() bool { return len(failed) > 0 }, "it is said")
	err = <-failed
	require.ErrorIs(t, err, block.ErrCorrupt)
	require.ErrorContains(t, err, "old 004")
	require.Len(t, replaced(s, before), 9)
	require.Equal(t, before["old 004"], s.Records()["old 004"])

	s.SetEngine(key, good) // it is mended
	got, err := s.Get(g.ctx, []byte("old 004"), nil)
	require.NoError(t, err)
	require.Equal(t, "data of old 4", string(got))
	g.clock.Advance(2 * time.Hour)
	g.soon(func() bool { return len(replaced(s, before)) == 10 }, "it is tried again")
}

// EpochMaxAge and EpochMaxDEKs, too, outlive a reopen without options.
func TestEpochPoliciesSurviveReopen(t *testing.T) {
	g := newAgeRig(t)
	g.opts.Keyring.EpochMaxAge, g.opts.Keyring.EpochMaxDEKs = 10*time.Hour, 50
	require.NoError(t, g.open().Close())
	g.opts.Keyring.EpochMaxAge, g.opts.Keyring.EpochMaxDEKs = 0, 0
	s := g.open()
	p := s.Policy()
	require.Equal(t, keyring.Policy{Wrapping: keyring.ByKeyring, EpochMaxDEKs: 50, EpochMaxAge: 10 * time.Hour}, p)
	first := s.State().Epoch
	g.putMany(s, "count", 51)
	require.Equal(t, first+1, s.State().Epoch, "a new epoch after 50 DEKs")
	g.pass(11)
	g.soon(func() bool { return s.State().Epoch == first+2 }, "a new epoch after 10 hours")
	require.NoError(t, s.Close())

	g.opts.Keyring.EpochMaxAge = -1
	g.opts.Keyring.RekeyAfter = 40 * time.Hour
	s = g.open()
	require.NoError(t, s.Close())
	g.opts.Keyring.EpochMaxAge, g.opts.Keyring.RekeyAfter = 0, 0
	s = g.open()
	require.Equal(t, keyring.Policy{Wrapping: keyring.ByKeyring, EpochMaxDEKs: 50, RekeyAfter: 40 * time.Hour}, s.Policy())
	require.NoError(t, s.Close())
	g.opts.Keyring.RekeyAfter = -1
	require.NoError(t, g.open().Close())
	g.opts.Keyring.RekeyAfter = 0
	require.Zero(t, g.open().Policy().RekeyAfter)
}
