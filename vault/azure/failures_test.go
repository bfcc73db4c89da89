package azure_test

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// doubted reports whether a row is of an answer that is asked about again, after seconds.
func (r row) doubted() bool { return strings.Contains(r.text, " times in a row") }

// Every row, from the body of the answer up to what a reader of a block is told and
// the state of the store.
func TestEveryFailureUpToTheStore(t *testing.T) {
	t.Parallel()
	for _, row := range rows {
		if row.doubted() {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			upToTheStore(t, newRig(t, nil), row)
		})
	}
}

// The same of what is asked about again, on a clock that does not wait; TestDoubtsOnTheRealClock does.
func TestEveryDoubtUpToTheStore(t *testing.T) {
	for _, row := range rows {
		if !row.doubted() {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) { upToTheStore(t, r, row) })
		})
	}
}

func upToTheStore(t *testing.T, r *rig, row row) {
	ctx := t.Context()
	clock := vaulttest.NewClock(time.Now())
	v := r.client()
	s, err := block.Open(ctx, "store", kek.New(v, r.key.Versionless()), &block.Options{
		Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20}, Keyring: keyring.Options{Clock: clock}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Put(ctx, []byte("a"), []byte("data")))

	if row.do != nil {
		row.do(r)
	}
	if !reflect.ValueOf(row.fault).IsZero() {
		r.Inject(row.fault)
	}
	err = s.Revalidate(ctx)
	require.ErrorIs(t, err, row.kind)
	require.True(t, strings.HasSuffix(r.anonymous(err.Error()), row.text), "%s\nis not about\n%s", r.anonymous(err.Error()), row.text)

	st := s.State()
	require.ErrorIs(t, st.Cause, row.kind)
	prefix := `block: get "a": keyring: inaccessible since <time>: `
	if vault.Transient(row.kind) {
		require.Equal(t, keyring.Degraded, st.Status)
		got, err := s.Get(ctx, []byte("a"), nil)
		require.NoError(t, err, "the lease still runs")
		require.Equal(t, "data", string(got))
		clock.Advance(keyring.DefaultLease)
		prefix += "the lease ended: no unwrap succeeded in time; the last check: "
	}
	require.Equal(t, keyring.Inaccessible, s.State().Status)
	_, err = s.Get(ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.ErrorIs(t, err, row.kind)
	if vault.Transient(row.kind) {
		// The end of the lease is reason for another check, which may have another
		// answer by now: that it is still not the time to ask, for one.
		require.True(t, strings.HasPrefix(r.anonymous(err.Error()), prefix), err)
	} else {
		require.Equal(t, prefix+row.text, r.anonymous(err.Error()))
	}
	require.NotContains(t, err.Error(), "eyJ", "no token")
	require.ErrorIs(t, s.Put(ctx, []byte("b"), []byte("data")), block.ErrInaccessible)
}

var (
	anyTime    = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	anyVersion = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	anyRequest = regexp.MustCompile(`00000000-0000-4000-8000-[0-9a-f]{12}`)
)

// anonymous replaces what differs from run to run.
func (r *rig) anonymous(text string) string {
	text = strings.ReplaceAll(text, r.URL()+"/keys/kek", "<key>")
	text = strings.ReplaceAll(text, r.URL(), "<vault>")
	text = anyVersion.ReplaceAllString(text, "<version>")
	text = anyRequest.ReplaceAllString(text, "<id>")
	return anyTime.ReplaceAllString(text, "<time>")
}
