package adversary

import (
	"context"
	"errors"
	"flag"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

var reads = flag.Int("reads", 60, "fail this many reads of TestReadsThatFail, spread over all (0: every one)")

// flaky makes reads of a file system fail: times of them from at on, which counts from 1;
// 0 is none.
type flaky struct {
	n, at atomic.Int64
	times int64
}

func (f *flaky) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileRead, errorfs.OpFileReadAt, errorfs.OpOpen:
		default:
			return nil
		}
		if strings.HasSuffix(op.Path, "LOCK") {
			return nil
		}
		n := f.n.Add(1)
		if at := f.at.Load(); at > 0 && n >= at && n < at+f.times {
			return syscall.EIO
		}
		return nil
	}))
}

// everything does all that a store does and returns the errors. Erase, which waits for as
// long as the disk cannot be read, is given up after a while.
func (g *rig) everything(s *block.Store, patience time.Duration) (errs []error) {
	try := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	read := func(id string, got []byte, err error) {
		try(err)
		if err == nil {
			require.Equal(g.t, string(plain(id)), string(got))
		} else {
			require.Nil(g.t, got)
		}
	}
	for _, id := range []string{"b/00000", "b/00050", "b/00119"} {
		got, err := s.Get(g.ctx, []byte(id), nil)
		read(id, got, err)
		_, err = s.Has(g.ctx, []byte(id))
		try(err)
	}
	for b, err := range s.Blocks(g.ctx, block.Range{}) {
		try(err)
		if err == nil {
			require.Equal(g.t, string(plain(string(b.ID))), string(b.Data))
		}
	}
	sn := s.Snapshot()
	got, err := sn.Get(g.ctx, []byte("b/00007"), nil)
	read("b/00007", got, err)
	for _, err := range sn.Blocks(g.ctx, block.Range{Start: []byte("b/00100")}) {
		try(err)
	}
	try(sn.Close())
	try(second(s.KeyUsage(g.ctx)))
	try(second(s.Copies(g.ctx)))
	try(second(s.Verify(g.ctx, nil)))
	try(s.RotateEpoch(g.ctx, nil))
	try(s.Rekey(g.ctx, block.Range{End: []byte("b/00030")}, nil))
	try(s.RotateKEK(g.ctx))
	try(s.RewrapDEKs(g.ctx, nil))
	// What it compacts is tried again for as long as the disk cannot be read.
	ctx, cancel := context.WithTimeout(g.ctx, patience)
	defer cancel()
	try(second(s.Erase(ctx, nil)))
	try(s.Put(g.ctx, []byte("b/00001"), plain("b/00001")))
	return errs
}

// A disk that fails to read, at any read of a store's work: an error, never other data,
// and everything is there once the disk reads again.
func TestReadsThatFail(t *testing.T) {
	for _, wrapping := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(wrapping.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping = wrapping
			g.opts.ManualRewrap = true
			content, ids := g.engineFiles()
			run := func(at, times int64) (reads int64, errs []error) {
				f := &flaky{times: times}
				f.at.Store(at)
				patience := time.Minute
				if times > 1 { // the disk is not read any more
					patience = time.Second
				}
				r := *g
				r.opts.Pebble.FS = f.wrap(restore(t, content))
				r.opts.Pebble.BlockCache = 1 // read from the disk each time
				r.opts.Pebble.Fatal = func(msg string) { panic(msg) }
				s, err := block.Open(r.ctx, r.dir, r.kek, &r.opts)
				if err != nil {
					errs = []error{err}
				} else {
					errs = r.everything(s, patience)
					if err := s.Close(); err != nil {
						errs = append(errs, err)
					}
				}
				f.at.Store(0)
				r.opts.Pebble.BlockCache = 0
				r.intact(ids...)
				return f.n.Load(), errs
			}
			all, errs := run(0, 0)
			require.Empty(t, errs)
			require.Greater(t, all, int64(50))
			step := int64(1)
			if *reads > 0 {
				step = max(1, 2*all/int64(*reads))
				if wrapping == keyring.ByKEK {
					step *= 6 // an RSA operation for each block
				}
			}
			runs, failed := 0, 0
			for at := int64(1); at <= all; at += step {
				times := int64(1)
				if runs%2 == 1 { // at may be odd in all of a sample
					times = 1 << 40 // from here on
				}
				_, errs := run(at, times)
				runs++
				if len(errs) > 0 {
					failed++
				}
				for _, err := range errs {
					require.NotContains(t, err.Error(), canary)
					require.False(t, errors.Is(err, block.ErrNotFound), "read %d: what cannot be read is not absent: %v", at, err)
				}
			}
			require.Greater(t, failed, runs/5) // background work meets the others
			t.Logf("%d reads; failed at %d of them, with errors to the caller at %d; nothing lost", all, runs, failed)
		})
	}
}

// An epoch is dropped only if every record was moved: whichever read of the rotation
// fails, and whether or not it says so, nothing is lost.
func TestNoReadThatFailsLosesARecord(t *testing.T) {
	g := newRig(t)
	content, ids := g.engineFiles()
	run := func(at int64) (reads int64, err error) {
		f := &flaky{times: 1}
		r := *g
		r.opts.Pebble.FS, r.opts.Pebble.BlockCache = f.wrap(restore(t, content)), 1
		s, err := block.Open(r.ctx, r.dir, r.kek, &r.opts)
		require.NoError(t, err)
		f.n.Store(0)
		f.at.Store(at)
		err = s.RotateEpoch(r.ctx, nil)
		reads = f.n.Load()
		f.at.Store(0)
		require.NoError(t, s.Close())
		r.opts.Pebble.BlockCache = 0
		r.intact(ids...)
		return reads, err
	}
	all, err := run(0)
	require.NoError(t, err)
	require.Greater(t, all, int64(4))
	failed := 0
	for at := int64(1); at <= all; at++ {
		if _, err := run(at); err != nil {
			failed++
		}
	}
	require.Positive(t, failed)
	t.Logf("%d reads in a rotation, %d of them end it, nothing lost", all, failed)
}
