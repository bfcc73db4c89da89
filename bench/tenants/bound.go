package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// bare is what any design with a key for each store does and no more: a Get finds the block in a map,
// unwraps its DEK with the store's key and opens it; a Put seals under a new DEK, wraps that, and writes
// both to a plain Pebble. What it loses over many stores is the bound of what blockseal can keep.
type bare struct {
	db     *pebble.DB
	stores []*bareStore
	rows   map[string]bareRow
	key    []byte
	dek    []byte
	batch  []byte
}

type bareStore struct {
	prefix [4]byte
	id     [16]byte // in the AAD
	key    cipher.AEAD
}

// bareRow are a nonce and what is sealed with it, each.
type bareRow struct{ record, sealed []byte }

func newBare(dir string, stores, blocks int) (b *bare, err error) {
	db, err := pebble.Open(dir, &pebble.Options{MemTableSize: 64 << 20, MemTableStopWritesThreshold: 4, Logger: quiet{}})
	if err != nil {
		return nil, err
	}
	b = &bare{db: db, rows: make(map[string]bareRow, stores*blocks), dek: make([]byte, 32)}
	key, data := make([]byte, 32), make([]byte, useSize)
	for i := range stores {
		s := new(bareStore)
		binary.BigEndian.PutUint32(s.prefix[:], uint32(i))
		rand.Read(s.id[:])
		rand.Read(key)
		if s.key, err = gcm(key); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		b.stores = append(b.stores, s)
		for n := range blocks {
			row, err := b.seal(s, blockID(n), data)
			if err != nil {
				return nil, errors.Join(err, db.Close())
			}
			b.rows[string(b.keyOf(s, blockID(n)))] = bareRow{slices.Clone(row.record), slices.Clone(row.sealed)}
		}
	}
	return b, nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(c)
}

const nonceSize = 12

// keyOf returns a key of the map and of Pebble, which is valid until the next one.
func (b *bare) keyOf(s *bareStore, id []byte) []byte {
	b.key = append(append(append(b.key[:0], s.prefix[:]...), s.id[:]...), id...)
	return b.key
}

func (b *bare) get(s *bareStore, id, dst []byte) ([]byte, error) {
	key := b.keyOf(s, id)
	row, ok := b.rows[string(key)]
	if !ok {
		return nil, pebble.ErrNotFound
	}
	dek, err := s.key.Open(b.dek[:0], row.record[:nonceSize], row.record[nonceSize:], key)
	if err != nil {
		return nil, err
	}
	c, err := gcm(dek)
	if err != nil {
		return nil, err
	}
	return c.Open(dst, row.sealed[:nonceSize], row.sealed[nonceSize:], key)
}

// seal returns a row that is valid until the next one.
func (b *bare) seal(s *bareStore, id, data []byte) (row bareRow, err error) {
	key := b.keyOf(s, id)
	rand.Read(b.dek)
	c, err := gcm(b.dek)
	if err != nil {
		return row, err
	}
	b.batch = slices.Grow(b.batch[:0], 2*nonceSize+len(b.dek)+len(data)+2*c.Overhead())
	nonces := b.batch[:2*nonceSize]
	rand.Read(nonces[:nonceSize])
	record := s.key.Seal(nonces[:nonceSize], nonces[:nonceSize], b.dek, key)
	sealed := record[len(record) : len(record)+nonceSize]
	rand.Read(sealed)
	return bareRow{record, c.Seal(sealed, sealed, data, key)}, nil
}

func (b *bare) put(s *bareStore, id, data []byte) error {
	row, err := b.seal(s, id, data)
	if err != nil {
		return err
	}
	batch := b.db.NewBatch()
	key := b.keyOf(s, id)
	err = batch.Set(append(key, 'r'), row.record, nil)
	if err == nil {
		err = batch.Set(append(key, 's'), row.sealed, nil)
	}
	if err == nil {
		err = batch.Commit(pebble.NoSync)
	}
	return errors.Join(err, batch.Close())
}

// quiet is a logger that says nothing.
type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { pebble.DefaultLogger.Fatalf(f, a...) }
