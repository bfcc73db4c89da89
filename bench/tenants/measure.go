package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// measurements are what tables are made of.
type measurements struct {
	Stores  int     `json:"stores"` // in the DB with many
	Open    int     `json:"open"`   // of them, at once, where stores are open
	Create  create  `json:"create"`
	OpenDB  openDB  `json:"openDB"`
	Memory  memory  `json:"memory"`
	Use     []use   `json:"use"`
	Restart restart `json:"restart"`
	Drop    []drop  `json:"drop"`
}

// part is one measurement, in a directory that it has for itself.
type part struct {
	name string
	f    func(ctx context.Context, l *lab, dir string, m *measurements) error
}

func parts() []part {
	return []part{
		{"create", measureCreate}, {"opendb", measureOpenDB}, {"memory", measureMemory},
		{"restart", measureRestart}, {"use", measureUse}, {"drop", measureDrop},
	}
}

func (o options) part(name string) *part {
	for _, p := range parts() {
		if p.name == name {
			return &p
		}
	}
	return nil
}

// measure measures all parts, or one. Those that need the DB with many stores share it: the first
// one makes it.
func measure(ctx context.Context, o options, progress io.Writer) (m measurements, err error) {
	dir, err := os.MkdirTemp(o.dir, "blockseal-tenants-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m.Stores, m.Open = o.stores, o.open
	l := &lab{options: o, progress: progress, vault: vaulttest.New(nil), root: dir}
	for range keys {
		l.keys = append(l.keys, l.vault.CreateKey(fmt.Sprint("customer-", len(l.keys))).Versionless())
	}
	for _, p := range parts() {
		if o.only != "" && p.name != o.only {
			continue
		}
		own, err := os.MkdirTemp(dir, p.name+"-")
		if err != nil {
			return m, err
		}
		fmt.Fprintln(progress, p.name)
		if err := errors.Join(p.f(ctx, l, own, &m), os.RemoveAll(own)); err != nil {
			return m, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return m, nil
}

// keys is how many KEKs the stores have between them: to make an RSA key for each would take longer
// than all that is measured. A store does not know who else has its KEK.
const keys = 24

// lab is what all parts share.
type lab struct {
	options
	progress io.Writer
	root     string
	vault    *vaulttest.Vault
	keys     []vault.KeyID
	many     string // the directory of the DB with many stores, of this run; "": not made yet
	created  create
}

// name is the name of a store, and key its KEK's.
func name(i int) string { return fmt.Sprintf("tenant-%06d", i) }

func (l *lab) kek(v vault.Vault, name string) *kek.KEK {
	var i int
	fmt.Sscanf(name, "tenant-%d", &i)
	return kek.New(v, l.keys[i%len(l.keys)])
}

// options of a DB whose stores are opened with a vault. The rest is as a program would have it.
func (l *lab) dbOptions(v vault.Vault) *block.DBOptions {
	return &block.DBOptions{MaxOpen: l.open, Resolve: func(_ context.Context, name string) (*kek.KEK, *block.Options, error) {
		return l.kek(v, name), nil, nil
	}}
}

func (l *lab) openDB(ctx context.Context, dir string) (*block.DB, error) {
	return block.OpenDB(ctx, dir, l.dbOptions(l.vault))
}

// create makes a store, fills it and closes it, and returns what the first and the last of these took.
func (l *lab) create(ctx context.Context, db *block.DB, name string, fill func(*block.Store) error) (created, closed time.Duration, err error) {
	start := time.Now()
	s, err := db.Create(ctx, name, l.kek(l.vault, name), nil)
	if err != nil {
		return 0, 0, err
	}
	created = time.Since(start)
	err = fill(s)
	start = time.Now()
	err = errors.Join(err, s.Close())
	return created, time.Since(start), err
}

// fill puts blocks of so many bytes into a store, in batches.
func fill(ctx context.Context, s *block.Store, blocks, size int) error {
	data := make([]byte, size+1000)
	rand.Read(data)
	for i := 0; i < blocks; {
		b := s.NewBatch()
		for n := 0; n < 1<<20 && i < blocks; n += size + 100 {
			if err := b.Put(ctx, blockID(i), data[i%1000:i%1000+size]); err != nil {
				return err
			}
			i++
		}
		if err := b.Commit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// blockID is the id of a block, of 8 bytes, far from those before and after it.
func blockID(i int) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(i)*0x9e3779b97f4a7c15)
}

// settle opens a DB and closes it, until there is no log to replay: what was in it is in the
// engine's tables then.
func (l *lab) settle(ctx context.Context, dir string) error {
	for range 2 {
		db, err := l.openDB(ctx, dir)
		if err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
	}
	return nil
}

// held returns the bytes that the heap and the stacks of all goroutines hold.
func held() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
