package sealfs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// countedStorage counts how often the document is looked at, and may be silent.
type countedStorage struct {
	keyring.MemStorage
	loads  atomic.Int64
	silent atomic.Bool
}

func (s *countedStorage) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	s.loads.Add(1)
	if s.silent.Load() {
		return nil, "", errors.New("the storage does not answer")
	}
	return s.MemStorage.Load(ctx)
}

// Records that somebody wrote into the free slots of a head, of epochs that there are not, cost nothing: the
// file opens by its own, with keys that are in memory, and asks no storage, also if that does not answer.
// A rotation goes through.
func TestPlantedRecords(t *testing.T) {
	const slots, size = 32, 328
	for _, wrapping := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(wrapping.String(), func(t *testing.T) {
			g := newRig(t, nil)
			s := new(countedStorage)
			ring, err := keyring.Create(t.Context(), s, g.kek, &keyring.Options{Clock: g.clock, Wrapping: wrapping})
			require.NoError(t, err)
			defer ring.Close()
			under := vfs.NewMem()
			fs, err := sealfs.New(under, ring, nil)
			require.NoError(t, err)
			files := kinds(t, fs)
			for name := range files {
				b := raw(t, under, name)
				own := bytes.Clone(b[slots : slots+size])
				plant := func(slot int, epoch uint32, change func(b []byte)) {
					p := bytes.Clone(own)
					binary.BigEndian.PutUint32(p[3:], epoch) // behind the size and the record's type
					change(p)
					copy(b[slots+slot*size:], p)
				}
				in, err := keyring.ParseRecord(own[2 : 2+binary.BigEndian.Uint16(own)])
				require.NoError(t, err)
				plant(1, 1000, func([]byte) {})
				plant(2, 1<<32-1, func([]byte) {})
				plant(3, 0, func([]byte) {})
				plant(4, in.Epoch, func(p []byte) { p[40] ^= 1 })
				plant(5, 1001, func(p []byte) { // one of the other wrapping
					clear(p[7:])
					p[2] ^= 3
					binary.BigEndian.PutUint16(p, uint16(keyring.RecordSize+keyring.RecordSizeByKEK)-binary.BigEndian.Uint16(own))
				})
				// And its own behind them.
				copy(b[slots+6*size:], own)
				clear(b[slots : slots+size])
				putRaw(t, under, name, b)
			}
			before := s.loads.Load()
			s.silent.Store(true)
			for name, k := range files {
				got, err := k.read()
				require.NoError(t, err, name)
				require.Equal(t, k.content, got)
			}
			require.Equal(t, before, s.loads.Load(), "looks at the document")
			s.silent.Store(false)
			dropped, err := fs.RotateEpoch(t.Context(), "")
			require.NoError(t, err)
			require.Len(t, dropped, 1)
			for name, k := range files {
				got, err := k.read()
				require.NoError(t, err, name)
				require.Equal(t, k.content, got)
			}

			// Where no other is good the storage is asked, and the error says that nobody knows.
			b := raw(t, under, "000002.sst")
			copy(b[slots:], bytes.Repeat(make([]byte, size), 8))
			copy(b[slots:], raw(t, under, "000001.log")[slots:slots+8*size])
			putRaw(t, under, "000002.sst", b)
			_, err = read(fs, "000002.sst")
			require.ErrorIs(t, err, keyring.ErrCorrupt)
			s.silent.Store(true)
			_, err = read(fs, "000002.sst")
			require.ErrorContains(t, err, "the storage does not answer")
			require.NotErrorIs(t, err, keyring.ErrCorrupt)
		})
	}
}
