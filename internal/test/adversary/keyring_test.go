package adversary

import (
	"context"
	"crypto/fips140"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// fipsOnly is whether what is not approved is refused, rather than merely marked.
func fipsOnly() bool {
	return fips140.Enabled() && strings.Contains(os.Getenv("GODEBUG"), "fips140=only")
}

// held is a keyring document in memory that remembers whether it was replaced.
type held struct {
	document []byte
	saves    int
}

func (h *held) Load(context.Context) ([]byte, keyring.Revision, error) {
	if h.document == nil {
		return nil, "", keyring.ErrNoDocument
	}
	return h.document, keyring.ContentRevision(h.document), nil
}

func (h *held) Swap(_ context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if h.document == nil && was != "" || h.document != nil && was != keyring.ContentRevision(h.document) {
		return "", keyring.ErrConflict
	}
	h.document = append([]byte(nil), document...)
	h.saves++
	return keyring.ContentRevision(document), nil
}

// ring makes a keyring with one DEK and closes it.
func (g *rig) ring() (document, record []byte) {
	h := &held{}
	r, err := keyring.Create(g.ctx, h, g.kek, &g.opts.Keyring)
	require.NoError(g.t, err)
	key, record, err := r.NewDEK(g.ctx, []byte("context"))
	require.NoError(g.t, err)
	key.Destroy()
	require.NoError(g.t, r.Close())
	return h.document, record
}

// unusable opens a document and requires that no DEK can be had from it: an error, or
// a keyring that is locked with a reason. It returns the reason.
func (g *rig) unusable(document, record []byte, what string) error {
	g.t.Helper()
	h := &held{document: document}
	r, err := keyring.Open(g.ctx, h, g.kek, &g.opts.Keyring)
	if err == nil {
		st := r.State()
		require.Equal(g.t, keyring.Inaccessible, st.Status, what)
		key, openErr := r.OpenDEK(g.ctx, record, []byte("context"))
		require.ErrorIs(g.t, openErr, keyring.ErrInaccessible, what)
		require.Nil(g.t, key)
		key, w, newErr := r.NewDEK(g.ctx, []byte("context"))
		require.ErrorIs(g.t, newErr, keyring.ErrInaccessible, what)
		require.Nil(g.t, key)
		require.Nil(g.t, w)
		err = st.Cause
		require.Error(g.t, err)
		require.NoError(g.t, r.Close())
	} else {
		require.Nil(g.t, r)
	}
	require.Zero(g.t, h.saves, "%s: nothing is written over a document that did not open", what)
	require.Equal(g.t, document, h.document)
	return err
}

// Every byte of a document, every length of it, and more.
func TestEveryWayToAlterAKeyringDocument(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		document, record := g.ring()
		n := 0
		try := func(bad string, what string) {
			n++
			err := g.unusable([]byte(bad), record, what)
			require.True(t, damaged(err) || vault.Kind(err) != nil || isWrongKEK(err), "%s: %v", what, err)
		}
		for i := range document {
			try(alter(string(document), i), numbered("flipped", i))
			try(string(document[:i]), numbered("truncated", i))
		}
		for _, more := range []string{"\x00", "\xff", string(document)} {
			try(string(document)+more, "trailing bytes")
		}
		for _, version := range []uint16{0, 2, 0x100, 0xffff} {
			bad := append([]byte(nil), document...)
			binary.BigEndian.PutUint16(bad[8:], version)
			require.ErrorIs(t, g.unusable(bad, record, "version"), keyring.ErrVersion)
			n++
		}
		t.Logf("%d altered documents, none of which gives a key", n)
	})
}

func isWrongKEK(err error) bool { return strings.Contains(err.Error(), keyring.ErrWrongKEK.Error()) }

// An older document of the same store: after RotateEpoch it opens nothing that is
// there now, and a generation kept elsewhere tells it from the newest.
func TestKeyringReplayed(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		ids := []string{"a", "b", "c", "d"}
		g.fill(ids...)
		old := g.records()[documentKey]
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		fingerprint, generation := s.Fingerprint(), s.State().Generation
		require.NoError(t, s.Close())
		good := g.records()
		require.NotEqual(t, old, good[documentKey])
		require.Less(t, binary.BigEndian.Uint64([]byte(old[30:38])), generation)

		g.set(map[string]string{documentKey: old})
		require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
		g.opts.Keyring.Anchor = keyring.Expect{Fingerprint: fingerprint, Generation: generation}
		require.ErrorIs(t, g.tryOpen(), keyring.ErrUnexpected)
		g.opts.Keyring.Anchor = nil

		// And with its old records, as a whole: the epochs are there, and only who kept
		// the generation can tell.
		g.set(good)
		g.intact(ids...)
	})
}

// A document of another store, with and without the store's id made to match.
func TestKeyringOfAnotherStore(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		o := g.sibling()
		g.fill("a", "b", "c")
		o.fill("a", "b", "c")
		good, theirs := g.records(), o.records()
		g.set(map[string]string{documentKey: theirs[documentKey]})
		require.ErrorIs(t, g.tryOpen(), block.ErrForeign)
		g.set(map[string]string{storeKey: theirs[storeKey]})
		require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
		bad := good[documentKey][:14] + theirs[storeKey][1:] + good[documentKey][30:]
		g.set(map[string]string{documentKey: bad})
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.ErrorIs(t, err, block.ErrCorrupt, "the id is authenticated")
		require.Nil(t, s)
		g.set(good)
		g.remove(documentKey)
		require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt, "one that is missing is not made anew")
		g.set(good)
		g.intact("a", "b", "c")
	})
}

// Another key than the one that wraps the document, of the same name and version.
func TestPublicKeySubstituted(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		g.fill("a", "b", "c")
		good := g.records()
		other := g.vault.CreateKey("attacker")
		theirs, err := g.vault.GetKey(g.ctx, other)
		require.NoError(t, err)
		fp, err := kek.Fingerprint(theirs.Public)
		require.NoError(t, err)

		// On disk: the hash of the public key in the document is authenticated.
		own, err := g.vault.GetKey(g.ctx, g.key)
		require.NoError(t, err)
		ownFP, err := kek.Fingerprint(own.Public)
		require.NoError(t, err)
		document := good[documentKey]
		require.Equal(t, 1, strings.Count(document, string(ownFP[:])))
		g.set(map[string]string{documentKey: strings.Replace(document, string(ownFP[:]), string(fp[:]), 1)})
		g.locked(vault.ErrUnsupportedKey)
		g.set(good)

		// From the vault: an answer with another public key.
		remove := g.vault.Inject(g.answerPublic(theirs))
		g.locked(vault.ErrUnsupportedKey)
		remove()

		// Another key pair behind the same version.
		saved := g.vault
		g.vault.ReplaceMaterial(g.key)
		g.locked(vault.ErrUnsupportedKey)
		g.vault = saved
		require.Equal(t, good, g.records())
	})
}

// locked requires that the store opens without access, for the given reason, and that
// nothing can be read or written; and that RequireAccess makes that an error.
func (g *rig) locked(reason error) {
	g.t.Helper()
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	require.Equal(g.t, keyring.Inaccessible, s.State().Status)
	require.ErrorIs(g.t, s.State().Cause, reason)
	require.NotContains(g.t, s.State().Cause.Error(), canary)
	g.shut(s, reason)
	require.Error(g.t, s.Revalidate(g.ctx))
	g.shut(s, reason)
	require.NoError(g.t, s.Close())
	o := *g
	o.opts.RequireAccess = true
	err = o.tryOpen()
	require.ErrorIs(g.t, err, reason)
}

// shut requires that a store neither reads nor writes.
func (g *rig) shut(s *block.Store, reason error) {
	g.t.Helper()
	got, err := s.Get(g.ctx, []byte("a"), nil)
	require.Nil(g.t, got)
	for what, err := range map[string]error{
		"get": err, "put": s.Put(g.ctx, []byte("x"), nil), "delete": s.Delete(g.ctx, []byte("a")),
		"has": second(s.Has(g.ctx, []byte("a"))), "rekey": s.Rekey(g.ctx, block.Range{}, nil),
		"rotate": s.RotateEpoch(g.ctx, nil), "change": s.RotateKEK(g.ctx), "verify": second(s.Verify(g.ctx, nil)),
	} {
		require.ErrorIs(g.t, err, block.ErrInaccessible, what)
		require.ErrorIs(g.t, err, reason, what)
		require.NotContains(g.t, err.Error(), canary)
	}
}
