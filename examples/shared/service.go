package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/postgres"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// place says where the database and the vault are: what each process is told when it starts.
type place struct {
	Vault  string `json:"vault"`  // the directory of a file vault; production has an address
	Conn   string `json:"conn"`   // of a role that may read and write rows, and no more
	Schema string `json:"schema"` // that has the tables
}

// service is what one process has: a pool, a vault of its own, and the store that all have.
type service struct {
	pool  *pgxpool.Pool
	vault *local.Vault
	db    *block.DB
	store *block.Store
}

const (
	customer  = "customer" // the key
	storeName = "orders"
)

// openService opens the store, or makes it. Any number of processes may do that at once.
func openService(ctx context.Context, p place) (s *service, err error) {
	s = &service{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if s.vault, err = local.Open(p.Vault, []byte(passphrase), nil); err != nil {
		return s, err
	}
	c, err := pgxpool.ParseConfig(p.Conn)
	if err != nil {
		return s, err
	}
	postgres.Configure(c)
	if s.pool, err = pgxpool.NewWithConfig(ctx, c); err != nil {
		return s, err
	}
	// The role of programs may not make tables.
	if s.db, err = postgres.Open(ctx, s.pool, &postgres.Options{Schema: p.Schema, NoCreate: true}); err != nil {
		return s, err
	}
	k := kek.New(s.vault.As("service"), vault.KeyID{Name: customer})
	// Each process checks for itself whether the key is still permitted, and locks for itself. By
	// default it checks once a minute; here nobody wants to wait for so long.
	o := &block.Options{Keyring: keyring.Options{CheckEvery: time.Second}}
	// All processes begin at once, and one of them makes the store. Of a store that somebody is just
	// making, who may have died meanwhile, it is ErrLocked.
	for {
		s.store, err = s.db.Create(ctx, storeName, k, o)
		if errors.Is(err, block.ErrExists) {
			s.store, err = s.db.Open(ctx, storeName, k, o)
		}
		if !errors.Is(err, block.ErrLocked) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, errors.Join(err, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Close closes what was opened, in the reverse order.
func (s *service) Close() (err error) {
	if s.db != nil {
		err = s.db.Close() // and the store
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.vault != nil {
		err = errors.Join(err, s.vault.Close())
	}
	return err
}
