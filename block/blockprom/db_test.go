package blockprom_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockprom"
	"github.com/blockseal/blockseal/internal/test/storerig"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

func exposeDB(t *testing.T, d *block.DB) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(blockprom.NewDB(d, nil)))
	return scrape(t, reg)
}

func instance(t *testing.T, g *storerig.DBRig) string {
	t.Helper()
	st, err := g.DB.Stats(g.Ctx)
	require.NoError(t, err)
	return `db="` + st.Instance + `"`
}

func TestDBMetricsFollowConventions(t *testing.T) {
	g := storerig.NewDB(t)
	g.Open()
	g.Create("a")
	problems, err := promlint.New(strings.NewReader(exposeDB(t, g.DB))).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	problems, err = testutil.CollectAndLint(blockprom.NewDB(g.DB, nil))
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestDBMetricsSayWhatTheStoresAre(t *testing.T) {
	g := storerig.NewDB(t)
	g.Open()
	db := instance(t, g)
	text := exposeDB(t, g.DB)
	is := func(want, name, labels string) {
		t.Helper()
		require.Equal(t, want, metric(text, "db_"+name, labels), "%s{%s}", name, labels)
	}
	is("0", "stores", db+`,state="available"`)
	is("0", "vault_calls_total", db+`,operation="get",outcome="throttled"`)
	is("0", "failures_total", db+`,kind="corrupt",operation="get"`)
	is("0", "troubles", db+`,kind="damaged"`)

	for _, name := range []string{"well", "revoked", "unheard", "closed"} {
		s := g.Create(name)
		require.NoError(t, s.Put(g.Ctx, []byte("id"), make([]byte, 100)))
		switch name {
		case "revoked":
			g.Vault.SetEnabled(g.KEK(name).ID(), false)
			require.Error(t, s.Revalidate(g.Ctx))
		case "unheard":
			g.Vault.SetOutage(&vault.Error{Kind: vault.ErrUnavailable})
			require.Error(t, s.Revalidate(g.Ctx))
			g.Vault.SetOutage(nil)
		case "closed":
			require.NoError(t, s.Close())
		}
	}
	g.Own.Advance(10 * time.Second)
	text = exposeDB(t, g.DB)
	for state, want := range map[string]string{"available": "1", "degraded": "1", "inaccessible": "1", "not_open": "1", "dropping": "0"} {
		is(want, "stores", db+`,state="`+state+`"`)
	}
	is("1000", "open_stores_limit", db)
	is("0", "opening_stores", db)
	is("0", "waiting_stores", db)
	is("1.77236641e+09", "counted_timestamp_seconds", db)
	is("1", "troubles", db+`,kind="inaccessible"`)
	is("1", "store_trouble", db+`,kind="inaccessible",name="revoked"`)
	is("4", "puts_total", db)
	is("400", "written_bytes_total", db)
	is("1", "checks_total", db+`,result="denied"`)
	is("1", "vault_calls_total", db+`,operation="get",outcome="key_disabled"`)
	is("4", "vault_call_duration_seconds_count", db+`,operation="wrapKey"`)
	require.NotEmpty(t, metric(text, "db_engine_disk_bytes", db))

	require.NoError(t, g.DB.Close())
	text = exposeDB(t, g.DB)
	is("0", "stores", db+`,state="available"`)
	is("4", "puts_total", db)
	is("", "engine_disk_bytes", db)
}

// How many series there are does not depend on how many stores there are.
func TestDBMetricsAreBounded(t *testing.T) {
	g := storerig.NewDB(t)
	g.Open()
	series := func() int { return strings.Count(exposeDB(t, g.DB), "\nblockseal_db_") }
	g.Create("first")
	before := series()
	const many = 40
	for i := range many {
		s := g.Create(fmt.Sprint(i))
		g.Vault.SetEnabled(g.KEK(fmt.Sprint(i)).ID(), false)
		require.Error(t, s.Revalidate(g.Ctx))
	}
	require.Equal(t, before+block.MaxTroubles, series())
	text := exposeDB(t, g.DB)
	require.Equal(t, fmt.Sprint(many), metric(text, "db_troubles", instance(t, g)+`,kind="inaccessible"`))
}

// Names of stores are any UTF-8, and a scrape is whole all the same.
func TestDBMetricsOfAnyName(t *testing.T) {
	g := storerig.NewDB(t)
	g.Open()
	names := []string{"a\nb", `a"b`, `a\b`, "\x00", "\u202eevil", "é", "e\u0301", strings.Repeat("ж", 127), "} 1\nblockseal_db_puts_total 7\n"}
	for _, name := range names {
		s := g.Create(name)
		g.Vault.SetEnabled(g.KEK(name).ID(), false)
		require.Error(t, s.Revalidate(g.Ctx))
	}
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(blockprom.NewDB(g.DB, nil)))
	families, err := reg.Gather()
	require.NoError(t, err)
	var got []string
	for _, f := range families {
		if f.GetName() == "blockseal_db_store_trouble" {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "name" {
						got = append(got, l.GetValue())
					}
				}
			}
		}
	}
	require.ElementsMatch(t, names, got)
	text := scrape(t, reg)
	require.NotContains(t, text, "\nblockseal_db_puts_total 7\n")
	require.Contains(t, text, `name="a\nb"`)
}

// A DB beside a store of its own, and two DBs, have one registry.
func TestDBsAndStoresShareARegistry(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for range 2 {
		g := storerig.NewDB(t)
		g.Open()
		require.NoError(t, reg.Register(blockprom.NewDB(g.DB, nil)))
		require.NoError(t, reg.Register(blockprom.New(g.Create("a"), nil)))
		require.Error(t, reg.Register(blockprom.NewDB(g.DB, nil)), "the same series twice")
	}
	_, err := reg.Gather()
	require.NoError(t, err)
	g := storerig.NewDB(t)
	g.Open()
	reg = prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(blockprom.NewDB(g.DB, &blockprom.Options{Labels: prometheus.Labels{"db": "orders"}})))
	require.Equal(t, "0", metric(scrape(t, reg), "db_puts_total", `db="orders"`))
}

// docs/metrics.md has a row for every metric of a DB, or for the one of a store that it is the sum of.
func TestEveryDBMetricIsDocumented(t *testing.T) {
	g := storerig.NewDB(t)
	g.Open()
	doc, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(blockseal_[a-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1) {
		documented[m[1]] = true
	}
	ch := make(chan *prometheus.Desc, 1000)
	blockprom.NewDB(g.DB, nil).Describe(ch)
	close(ch)
	have := map[string]bool{}
	for d := range ch {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]
		have[name] = true
		require.True(t, documented[name] || documented["blockseal_"+strings.TrimPrefix(name, "blockseal_db_")], "docs/metrics.md does not list %s", name)
	}
	for name := range documented {
		require.True(t, have[name] || !strings.HasPrefix(name, "blockseal_db_"), "docs/metrics.md lists %s, which is no metric", name)
	}
	for _, m := range regexp.MustCompile("blockseal_db_[a-z_]*[a-z]").FindAllString(string(doc), -1) {
		require.True(t, have[m] || m == "blockseal_db", "docs/metrics.md names %s, which is no metric", m)
	}
}

// What is not open because it could not be is told too.
func TestDBMetricsOfAStoreThatDoesNotOpen(t *testing.T) {
	g := storerig.NewDB(t)
	g.Open()
	require.NoError(t, g.Create("a").Close())
	g.Store.RequireAccess = true
	g.Vault.SetEnabled(g.KEK("a").ID(), false)
	_, _, err := g.DB.Acquire(g.Ctx, "a")
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	require.False(t, errors.Is(err, block.ErrNoStore))
	require.Equal(t, "1", metric(exposeDB(t, g.DB), "db_store_trouble", instance(t, g)+`,kind="not_opened",name="a"`))
}

// The KEK of the files has metrics of its own, and a DB without one has none of them.
func TestDBMetricsOfTheFileKEK(t *testing.T) {
	g := storerig.NewDB(t)
	key := g.Vault.CreateKey("files")
	g.Opts.FileKEK, g.Opts.FileKeyring = kek.New(g.Vault, key.Versionless()), keyring.Options{Clock: g.Clock}
	g.Vault.SetDates(key, time.Time{}, storerig.Start().Add(48*time.Hour))
	g.Open()
	db := instance(t, g)
	text := exposeDB(t, g.DB)
	is := func(want, name, labels string) {
		t.Helper()
		require.Equal(t, want, metric(text, "db_"+name, labels), "%s{%s}", name, labels)
	}
	st := g.DB.FileKEK().State
	is("1", "file_kek_state", db+`,state="available"`)
	is("0", "file_kek_state", db+`,state="inaccessible"`)
	is("1", "files_open", db)
	is("1", "file_kek_info", db+`,key="files",vault="`+key.Vault+`",version="`+key.Version+`"`)
	is(fmt.Sprint(float64(st.LeaseEnd.UnixNano())/1e9), "file_kek_lease_end_timestamp_seconds", db)
	is(fmt.Sprint(float64(st.KEKExpires.UnixNano())/1e9), "file_kek_expiry_timestamp_seconds", db)
	is(fmt.Sprint(st.Epoch), "file_keyring_epoch", db)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)

	g.Vault.SetEnabled(key, false)
	require.ErrorIs(t, g.DB.RevalidateFileKEK(g.Ctx), vault.ErrKeyDisabled)
	require.Eventually(t, func() bool { return !g.DB.FileKEK().Open }, time.Minute, time.Millisecond)
	text = exposeDB(t, g.DB)
	is("1", "file_kek_state", db+`,state="inaccessible"`)
	is("0", "files_open", db)
	is("", "file_kek_lease_end_timestamp_seconds", db)
	require.NotEmpty(t, metric(text, "db_file_kek_last_check_timestamp_seconds", db))

	plain := storerig.NewDB(t)
	plain.Open()
	require.NotContains(t, exposeDB(t, plain.DB), "blockseal_db_file")
}
