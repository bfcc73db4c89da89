package blockprom_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockprom"
	"github.com/blockseal/blockseal/internal/test/storerig"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// expose returns the metrics of a store as Prometheus would scrape them.
func expose(t *testing.T, s *block.Store) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(blockprom.New(s, nil)))
	return scrape(t, reg)
}

func scrape(t *testing.T, reg prometheus.Gatherer) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

// metric returns the value of one series, as text, "" if there is none. Labels are
// given as they are exposed: in the order of their names.
func metric(text, name, labels string) string {
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta("blockseal_"+name) + `\{` + labels + `\} (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1]
}

func TestMetricsFollowConventions(t *testing.T) {
	g := storerig.New(t)
	g.Vault.SetDates(g.Key, time.Time{}, storerig.Start().Add(time.Hour))
	s := g.Open()
	require.NoError(t, s.RotateEpoch(g.Ctx, nil))
	problems, err := promlint.New(strings.NewReader(expose(t, s))).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	problems, err = testutil.CollectAndLint(blockprom.New(s, nil))
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestMetricsSayWhatTheStoreIs(t *testing.T) {
	g := storerig.New(t)
	g.Vault.SetDates(g.Key, time.Time{}, storerig.Start().Add(time.Hour))
	s := g.Open()
	require.NoError(t, s.Put(g.Ctx, []byte("a"), make([]byte, 100)))
	_, err := s.Get(g.Ctx, []byte("a"), nil)
	require.NoError(t, err)
	store := `store="` + s.StoreID().String() + `"`

	text := expose(t, s)
	is := func(want, name, labels string) {
		t.Helper()
		require.Equal(t, want, metric(text, name, labels), "%s{%s}", name, labels)
	}
	is("1", "state", `state="available",`+store)
	is("0", "state", `state="inaccessible",`+store)
	is("600", "lease_remaining_seconds", store)
	is("600", "lease_seconds", store)
	is("1.7723664e+09", "kek_created_timestamp_seconds", store)
	is("1.77237e+09", "kek_expiry_timestamp_seconds", store)
	is("1", "kek_info", `key="customer",`+store+`,vault="[^"]*",version="`+g.Key.Version+`"`)
	is("1", "puts_total", store)
	is("100", "written_bytes_total", store)
	is("1", "gets_total", `result="found",`+store)
	is("100", "read_bytes_total", `by="get",`+store)
	is("1", "epochs", store)
	is("1", "vault_calls_total", `operation="unwrapKey",outcome="ok",`+store)
	is("0", "vault_calls_total", `operation="unwrapKey",outcome="access_denied",`+store)
	is("1", "vault_call_duration_seconds_count", `operation="unwrapKey",`+store)
	is("1", "vault_call_duration_seconds_bucket", `operation="unwrapKey",`+store+`,le="0.001"`)
	is("0", "open_failures_total", `kind="corrupt",`+store)
	is("0", "work_running", store+`,work="rotate_epoch"`)
	require.NotEmpty(t, metric(text, "engine_disk_bytes", store))

	// The vault says no.
	g.Vault.SetEnabled(g.Key, false)
	require.ErrorIs(t, s.Revalidate(g.Ctx), vault.ErrKeyDisabled)
	_, err = s.Get(g.Ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	text = expose(t, s)
	is("0", "state", `state="available",`+store)
	is("1", "state", `state="inaccessible",`+store)
	is("0", "lease_remaining_seconds", store)
	is("1", "checks_total", `result="denied",`+store)
	is("1", "open_failures_total", `kind="inaccessible",`+store)
	is("1", "vault_calls_total", `operation="get",outcome="key_disabled",`+store)
	is("0", "epochs", store)
	is("", "epoch", store)

	require.NoError(t, s.Close())
	text = expose(t, s)
	is("1", "state", `state="closed",`+store)
	is("", "engine_disk_bytes", store)
}

// What is exposed does not depend on what has happened: an increase from nothing
// is none that a rule would see.
func TestCountersAreThereFromTheBeginning(t *testing.T) {
	text := expose(t, storerig.New(t).Open())
	for _, outcome := range keyring.Outcomes() {
		for _, op := range []string{"get", "wrapKey", "unwrapKey"} {
			require.Contains(t, text, `operation="`+op+`",outcome="`+outcome+`"`)
		}
	}
	for _, name := range []string{"failures_total", "open_failures_total", "events_dropped_total", "checks_total"} {
		require.Contains(t, text, "\nblockseal_"+name+"{")
	}
}

func TestTwoStoresShareARegistry(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for range 2 {
		require.NoError(t, reg.Register(blockprom.New(storerig.New(t).Open(), nil)))
	}
	_, err := reg.Gather()
	require.NoError(t, err)
}

// docs/metrics.md has a row for every metric, and none for what is not one.
func TestEveryMetricIsDocumented(t *testing.T) {
	g := storerig.New(t)
	doc, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(blockseal_[a-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1) {
		documented[m[1]] = true
	}
	ch := make(chan *prometheus.Desc, 1000)
	blockprom.New(g.Open(), nil).Describe(ch)
	close(ch)
	have := map[string]bool{}
	for d := range ch {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]
		have[name] = true
		require.True(t, documented[name], "docs/metrics.md does not list %s", name)
	}
	for name := range documented {
		if strings.HasPrefix(name, "blockseal_db_") {
			continue // see TestEveryDBMetricIsDocumented
		}
		require.True(t, have[name], "docs/metrics.md lists %s, which is no metric", name)
	}
}

// A process that has two stores of one id open, a copy and its original, tells them apart.
func TestLabels(t *testing.T) {
	g := storerig.New(t)
	s := g.Open()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(blockprom.New(s, nil)))
	require.Error(t, reg.Register(blockprom.New(s, nil)), "the same series twice")

	// A label more for one of the two alone would be an inconsistent family.
	reg = prometheus.NewPedanticRegistry()
	for _, tenant := range []string{"a", "b"} {
		require.NoError(t, reg.Register(blockprom.New(s, &blockprom.Options{Labels: prometheus.Labels{"tenant": tenant}})))
	}
	text := scrape(t, reg)
	id := `store="` + s.StoreID().String() + `",tenant="`
	require.Equal(t, "0", metric(text, "puts_total", id+`a"`))
	require.Equal(t, "0", metric(text, "puts_total", id+`b"`))

	reg = prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(blockprom.New(s, &blockprom.Options{Labels: prometheus.Labels{"store": "orders"}})))
	require.Equal(t, "0", metric(scrape(t, reg), "puts_total", `store="orders"`))
}

// undescribed is a collector that a registry does not look at before it is collected.
type undescribed struct{ prometheus.Collector }

func (undescribed) Describe(chan<- *prometheus.Desc) {}

// A label that cannot be is an error of the program's registry, with the label's name or
// value in it, and whoever collects all the same gets errors and no panic.
func TestLabelsThatCannotBe(t *testing.T) {
	s := storerig.New(t).Open()
	for _, c := range []struct {
		name   string
		labels prometheus.Labels
		says   string
	}{
		{"a metric has it", prometheus.Labels{"operation": "x"}, "duplicate label names"},
		{"no name", prometheus.Labels{"": "x"}, "is not a valid label name"},
		{"not UTF-8", prometheus.Labels{"tenant": "\xff"}, "not valid UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := blockprom.New(s, &blockprom.Options{Labels: c.labels})
			require.ErrorContains(t, prometheus.NewRegistry().Register(p), c.says)
			reg := prometheus.NewRegistry()
			require.NoError(t, reg.Register(undescribed{p}))
			_, err := reg.Gather()
			require.ErrorContains(t, err, c.says)
		})
	}
}

// Each long operation has its series from the beginning, and those of one that ended.
func TestMetricsOfLongOperations(t *testing.T) {
	g := storerig.New(t)
	s := g.Open()
	id := `store="` + s.StoreID().String() + `",work="`
	text := expose(t, s)
	for _, name := range block.WorkNames() {
		require.Equal(t, "0", metric(text, "work_running", id+name+`"`), name)
		require.Empty(t, metric(text, "work_failed", id+name+`"`), name)
	}
	require.NoError(t, s.Put(g.Ctx, []byte("a"), []byte("b")))
	var during string
	_, err := s.Verify(g.Ctx, func(block.Step) { during = expose(t, s) })
	require.NoError(t, err)
	require.Equal(t, "1", metric(during, "work_running", id+`verify"`))
	require.Equal(t, "1", metric(during, "work_done_records", id+`verify"`))
	text = expose(t, s)
	require.Equal(t, "0", metric(text, "work_running", id+`verify"`))
	require.Equal(t, "0", metric(text, "work_failed", id+`verify"`))
	require.Equal(t, "1.7723664e+09", metric(text, "work_ended_timestamp_seconds", id+`verify"`))
	cancelled, cancel := context.WithCancel(g.Ctx)
	cancel()
	_, err = s.Verify(cancelled, nil)
	require.Error(t, err)
	require.Equal(t, "1", metric(expose(t, s), "work_failed", id+`verify"`))
}
