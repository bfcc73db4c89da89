package block_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// The engine's keys of block "a" and "b" in partition 0.
const (
	dekA, dataA = "\x02\x00\x00\x00\x00a", "\x03\x00\x00\x00\x00a"
	dekB, dataB = "\x02\x00\x00\x00\x00b", "\x03\x00\x00\x00\x00b"
)

const plaintext = "the plaintext of block a"

func damaged(err error) bool {
	return errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrVersion)
}

// Whatever is changed in a DEK record or a sealed block, reading it is an error,
// and Verify finds it.
func TestEveryByteOfARecordMatters(t *testing.T) {
	g := newRig(t)
	g.opts.RecordCache, g.opts.RowCache = -1, -1 // what is good in memory would outlast what is bad on disk
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte(plaintext)))
	require.NoError(t, s.Put(g.ctx, []byte("b"), []byte("another")))
	for name, key := range map[string]string{"DEK record": dekA, "sealed block": dataA} {
		t.Run(name, func(t *testing.T) {
			good := s.Engine([]byte(key))
			try := func(value []byte, what string, n int) {
				s.SetEngine([]byte(key), value)
				got, err := s.Get(g.ctx, []byte("a"), nil)
				require.True(t, damaged(err), "%s %d: %q, %v", what, n, got, err)
				require.Nil(t, got)
				require.NotContains(t, err.Error(), plaintext)
				require.ErrorContains(t, err, `block: get "a"`)
			}
			for i := range good {
				for _, bit := range []byte{0x01, 0x80, 0xff} {
					bad := bytes.Clone(good)
					bad[i] ^= bit
					try(bad, "flipped byte", i)
				}
			}
			for n := range good {
				try(good[:n], "truncated to", n)
			}
			try(append(bytes.Clone(good), 0), "extended by", 1)

			rep, err := s.Verify(g.ctx, nil)
			require.ErrorIs(t, err, block.ErrCorrupt)
			require.EqualValues(t, 1, rep.Damaged)
			require.EqualValues(t, 1, rep.Blocks, "the other block is whole")
			require.Equal(t, "a", string(rep.Problems[0].ID))
			scanned := 0
			for b, err := range s.Blocks(g.ctx, block.Range{}) {
				if err != nil {
					require.True(t, damaged(err))
					break
				}
				require.NotEqual(t, "a", string(b.ID))
				scanned++
			}
			require.Zero(t, scanned, "a scan ends with the damage that it comes to")

			s.SetEngine([]byte(key), nil)
			_, err = s.Get(g.ctx, []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrCorrupt, "one without the other")
			s.SetEngine([]byte(key), good)
			got, err := s.Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, plaintext, string(got))
		})
	}
}

// Records and blocks open where they were put, and nowhere else.
func TestNothingCanBeMoved(t *testing.T) {
	g := newRig(t)
	g.opts.RecordCache, g.opts.RowCache = -1, -1
	s := g.open()
	other := newRig(t)
	other.vault, other.kek, other.key = g.vault, g.kek, g.key // the same KEK
	o := other.open()
	for _, st := range []*block.Store{s, o} {
		require.NoError(t, st.Put(g.ctx, []byte("a"), []byte(plaintext)))
		require.NoError(t, st.Put(g.ctx, []byte("b"), []byte("another")))
	}
	goodDEK, goodData := s.Engine([]byte(dekA)), s.Engine([]byte(dataA))
	for name, c := range map[string]struct{ dek, data []byte }{
		"another block's record":        {s.Engine([]byte(dekB)), goodData},
		"another block's data":          {goodDEK, s.Engine([]byte(dataB))},
		"another block, whole":          {s.Engine([]byte(dekB)), s.Engine([]byte(dataB))},
		"another store's record":        {o.Engine([]byte(dekA)), goodData},
		"another store's data":          {goodDEK, o.Engine([]byte(dataA))},
		"the same of another store":     {o.Engine([]byte(dekA)), o.Engine([]byte(dataA))},
		"an older record, newer data":   {goodDEK, func() []byte { check(t, s.Put(g.ctx, []byte("a"), []byte("newer"))); return s.Engine([]byte(dataA)) }()},
		"no block's record, all zeroes": {make([]byte, len(goodDEK)), goodData},
	} {
		s.SetEngine([]byte(dekA), c.dek)
		s.SetEngine([]byte(dataA), c.data)
		_, err := s.Get(g.ctx, []byte("a"), nil)
		require.True(t, damaged(err), "%s: %v", name, err)
	}
	s.SetEngine([]byte(dekA), goodDEK)
	s.SetEngine([]byte(dataA), goodData)
}

// A keyring document that was altered anywhere is refused at Open.
func TestEveryByteOfTheKeyringMatters(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte(plaintext)))
	good := s.Document()
	try := func(value []byte, what string, n int) {
		s.SetEngine([]byte(documentKey), value)
		err := s.ReloadKeyring(g.ctx, g.kek)
		require.Error(t, err, "%s %d", what, n)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x01
		try(bad, "flipped byte", i)
	}
	for n := range good {
		try(good[:n], "truncated to", n)
	}
	try(append(bytes.Clone(good), 0), "extended by", 1)
	s.SetEngine([]byte(documentKey), good)
	require.NoError(t, s.ReloadKeyring(g.ctx, g.kek))
}
