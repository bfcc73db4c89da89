package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// service keeps the notes of many customers in one database: each has a store, under a key of
// their own that has their name. Its methods are safe for concurrent use.
type service struct {
	db    *block.DB
	vault vault.Vault // with the service's permissions; production has a client for each customer's
}

// openService opens the database in dir, or makes one. It asks no vault: a customer's store is
// opened when somebody asks for it first, and closed again when nobody has for ten minutes.
func openService(ctx context.Context, dir string, v vault.Vault) (*service, error) {
	s := &service{vault: v}
	var err error
	s.db, err = block.OpenDB(ctx, dir, &block.DBOptions{Resolve: s.resolve})
	return s, err
}

// resolve says how a customer's store is opened.
func (s *service) resolve(_ context.Context, customer string) (*kek.KEK, *block.Options, error) {
	return kek.New(s.vault, vault.KeyID{Name: customer}), nil, nil
}

// signUp makes a customer's store. Their key is there.
func (s *service) signUp(ctx context.Context, customer string) error {
	k, opts, err := s.resolve(ctx, customer)
	if err != nil {
		return err
	}
	store, err := s.db.Create(ctx, customer, k, opts)
	if err != nil {
		return err
	}
	return store.Close() // whoever asks for it first opens it again
}

// with calls f with a customer's store.
func (s *service) with(ctx context.Context, customer string, f func(*block.Store) error) error {
	store, release, err := s.db.Acquire(ctx, customer)
	if err != nil {
		return err
	}
	defer release()
	return f(store)
}

// put keeps notes of a customer, all or none.
func (s *service) put(ctx context.Context, customer string, notes map[string]string) error {
	return s.with(ctx, customer, func(store *block.Store) error {
		b := store.NewBatch()
		defer b.Close()
		for id, note := range notes {
			if err := b.Put(ctx, []byte(id), []byte(note)); err != nil {
				return err
			}
		}
		return b.Commit(ctx)
	})
}

// get returns a note of a customer.
func (s *service) get(ctx context.Context, customer, id string) (note string, err error) {
	err = s.with(ctx, customer, func(store *block.Store) error {
		data, err := store.Get(ctx, []byte(id), nil)
		note = string(data)
		return err
	})
	return note, err
}

// moveTo moves a customer to another service, to which nobody writes for them meanwhile. What is sent
// is sealed, and takes no key; there it is a copy, which opens for who has access to the customer's
// key. It returns the receipt of what was here.
func (s *service) moveTo(ctx context.Context, to *service, customer string) (moved block.Moved, r block.Receipt, err error) {
	reader, writer := io.Pipe() // over a network, say
	sent := make(chan error, 1)
	go func() {
		_, err := s.db.Export(ctx, customer, writer)
		writer.CloseWithError(err)
		sent <- err
	}()
	moved, err = to.db.Import(ctx, reader)
	reader.CloseWithError(err) // ends an export that nobody reads any more
	if err = errors.Join(err, <-sent); err != nil {
		return moved, r, err
	}
	err = to.with(ctx, customer, func(store *block.Store) error { return store.Revalidate(ctx) })
	if err != nil {
		return moved, r, fmt.Errorf("%s arrived, and does not open: %w", customer, err)
	}
	r, err = s.db.Drop(ctx, customer)
	return moved, r, err
}

func (s *service) Close() error { return s.db.Close() }
