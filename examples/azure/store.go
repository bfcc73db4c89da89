package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/azure"
)

// use is what a program does with a store on Key Vault. rehearse, which may be nil, is
// what happens to the key then.
func use(ctx context.Context, o options, cred azcore.TokenCredential, opts *azure.Options,
	rehearse func(context.Context, *block.Store) error, out io.Writer) (err error) {
	v, err := connect(ctx, o, cred, opts, out)
	if err != nil || o.preflight {
		return err
	}
	// A key without a version is followed when it is rotated.
	k := kek.New(v, o.key)
	s, err := block.Open(ctx, filepath.Join(o.dir, "store"), k, &block.Options{
		NoSync:        true, // an example; a database decides what it can lose
		RequireAccess: true, // no key, no start
		Keyring:       keyring.Options{OnEvent: func(e keyring.Event) { tell(e, out) }},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	fmt.Fprintf(out, "store         %s\n", o.dir)

	data := make([]byte, 4096)
	for i := range o.blocks {
		if err := s.Put(ctx, blockID(i), append(data[:0], fmt.Appendf(nil, "block %d", i)...)); err != nil {
			return err
		}
	}
	for i := range o.blocks {
		if data, err = s.Get(ctx, blockID(i), data[:0]); err != nil {
			return err
		}
		if want := fmt.Sprintf("block %d", i); string(data) != want {
			return fmt.Errorf("block %d has %d bytes, want %q", i, len(data), want)
		}
	}
	fmt.Fprintf(out, "blocks        %d written and read\n", o.blocks)
	usage, err := s.KeyUsage(ctx)
	if err != nil {
		return err
	}
	for _, u := range usage {
		fmt.Fprintf(out, "KEK in use    %s\n", u.Key)
	}
	if rehearse != nil {
		if err := rehearse(ctx, s); err != nil {
			return err
		}
	}
	if o.watch {
		fmt.Fprintf(out, "watching      take the key away, and give it back; interrupt to end\n")
		<-ctx.Done()
	}
	return nil
}

func blockID(i int) []byte { return fmt.Appendf(nil, "block/%08d", i) }

// tell writes an event of the key as a line.
func tell(e keyring.Event, out io.Writer) {
	switch {
	case e.Kind == keyring.StateChanged && e.Err != nil:
		fmt.Fprintf(out, "access        %v to %v: %v\n", e.From, e.To, e.Err)
	case e.Kind == keyring.StateChanged:
		fmt.Fprintf(out, "access        %v to %v\n", e.From, e.To)
	}
}
