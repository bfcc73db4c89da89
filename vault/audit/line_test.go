package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

var update = flag.Bool("update", false, "write the golden files anew; the format must not change under version 3")

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 60_000, time.UTC)

// examples are records of every shape.
func examples() []Record {
	return []Record{
		{Time: epoch, Event: EventOpened},
		{
			Time: epoch.Add(time.Second), Event: EventOperation, Identity: "ingest", Store: "store-1", Operation: vault.OpWrapKey,
			Key: "https://contoso.vault.azure.net/keys/kek", Version: "0123456789abcdef0123456789abcdef",
			Outcome: OutcomeOK, Duration: 1500 * time.Microsecond, RequestID: "req-7", VaultRequestID: "b1f0",
		},
		{
			Time: epoch.Add(2 * time.Second), Event: EventOperation, Identity: "ingest", Operation: vault.OpUnwrapKey,
			Key: "/keys/kek", Outcome: OutcomeDenied, Reason: "key disabled", Code: "Forbidden/KeyDisabled",
			Detail: "enable the key version to use it", Duration: time.Nanosecond,
		},
		{Time: epoch.Add(3 * time.Second), Event: EventLost, Count: 12},
		{Time: epoch.Add(4 * time.Second), Event: EventState, Store: "store-1", Reason: "Inaccessible", Detail: "<\"quotes\" & é\n\u2028>"},
	}
}

// origin is where a log begins whose identity is known.
var origin = Head{Log: LogID{0x7c, 0x10, 15: 0x01}}

// chain returns the lines of records that follow prev, and their last head.
func chainLines(prev Head, records ...Record) (lines [][]byte, head Head) {
	for _, r := range records {
		var line []byte
		line, prev = encode(prev, r)
		lines = append(lines, line)
	}
	return lines, prev
}

// TestGolden holds the format's bytes.
func TestGolden(t *testing.T) {
	lines, head := chainLines(origin, examples()...)
	got := bytes.Join(lines, nil)
	if *update {
		require.NoError(t, os.WriteFile("testdata/v3.jsonl", got, 0o644))
		require.NoError(t, os.WriteFile("testdata/v3.head", []byte(head.String()+"\n"), 0o644))
	}
	want, err := os.ReadFile("testdata/v3.jsonl")
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
	kept, err := os.ReadFile("testdata/v3.head")
	require.NoError(t, err)
	parsed, err := ParseHead(strings.TrimSpace(string(kept)))
	require.NoError(t, err)
	require.Equal(t, head, parsed)

	result, err := Verify(bytes.NewReader(want), &VerifyOptions{Head: parsed})
	require.NoError(t, err)
	require.Equal(t, Result{Records: 5, Head: head, Lost: 12}, result)
	i := 0
	for r, err := range Records(bytes.NewReader(want), nil) {
		require.NoError(t, err)
		require.Equal(t, examples()[i], r, "a record reads back as it was written")
		i++
	}
	require.Equal(t, 5, i)
}

// TestTheHashIsAsDocumented checks the golden file with nothing of this package:
// cut each line at the hash and hash what is before.
func TestTheHashIsAsDocumented(t *testing.T) {
	log, err := os.ReadFile("testdata/v3.jsonl")
	require.NoError(t, err)
	prev := strings.Repeat("0", 64)
	for line := range strings.Lines(string(log)) {
		body, rest, found := strings.Cut(line, `,"hash":"`)
		require.True(t, found)
		require.Contains(t, body, `"prev":"`+prev+`"`)
		sum := sha256.Sum256([]byte(body))
		prev = hex.EncodeToString(sum[:])
		require.Equal(t, prev+"\"}\n", rest)
	}
}

func TestStringsAreCutAndCleaned(t *testing.T) {
	for what, s := range map[string]string{
		"long":                  strings.Repeat("x", 5000),
		"long, of several-byte": strings.Repeat("é", 5000),
		"not UTF-8":             "a\xff\xfeb",
		"long, not UTF-8":       strings.Repeat("\xff", 5000),
		"just too long, not":    strings.Repeat("x\xff", MaxField/2),
		"control characters":    "\x00\x01\n\r\t\x7f",
		"longest":               strings.Repeat("\x01", MaxField),
	} {
		t.Run(what, func(t *testing.T) {
			r := Record{
				Time: epoch, Event: Event(s), Identity: s, Store: s, Operation: vault.Operation(s), Key: s, Version: s, Outcome: Outcome(s),
				Reason: s, Code: s, Detail: s, RequestID: s, VaultRequestID: s, Duration: 1<<63 - 1, Count: 1<<64 - 1,
			}
			line, head := encode(Head{Log: origin.Log, Seq: 1<<64 - 2}, r)
			require.LessOrEqual(t, len(line), maxLine)
			require.Equal(t, 1, bytes.Count(line, []byte("\n")))
			got, _, gotHead, err := decode(line)
			require.NoError(t, err)
			require.Equal(t, head, gotHead)
			require.LessOrEqual(t, len(got.Detail), MaxField)
			require.Equal(t, clean(s), got.Detail)
			require.Equal(t, got.Detail, clean(got.Detail))
		})
	}
	require.Equal(t, strings.Repeat("x", 1021)+"…", clean(strings.Repeat("x", 1025)))
	require.Equal(t, strings.Repeat("x", 1024), clean(strings.Repeat("x", 1024)))
}

func TestTimes(t *testing.T) {
	for _, tt := range []struct {
		in   time.Time
		want string
	}{
		{epoch, "2026-01-02T03:04:05.000060000Z"},
		{epoch.In(time.FixedZone("east", 3600)), "2026-01-02T03:04:05.000060000Z"},
		{time.Time{}, "0001-01-01T00:00:00.000000000Z"},
		{time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC), "0001-01-01T00:00:00.000000000Z"},
		{time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), "0001-01-01T00:00:00.000000000Z"},
	} {
		line, _ := encode(origin, Record{Time: tt.in, Duration: -time.Second})
		require.Contains(t, string(line), `"time":"`+tt.want+`"`)
		require.NotContains(t, string(line), "duration", "a negative duration is none")
		_, _, _, err := decode(line)
		require.NoError(t, err)
	}
}

// TestDecodeTakesOneSpelling: lines that say the same, with a hash that is right,
// are no records, or two readers could read two things.
func TestDecodeTakesOneSpelling(t *testing.T) {
	line, _ := encode(origin, examples()[2])
	body := string(line[:len(line)-tailSize])
	for what, other := range map[string]string{
		"space":            strings.Replace(body, ",", ", ", 1),
		"order":            strings.Replace(body, `{"v":3,"log":`, `{"log":"00","v":3,"log":`, 1),
		"case of a member": strings.Replace(body, `"identity"`, `"Identity"`, 1),
		"twice":            body + `,"outcome":"ok"`,
		"unknown member":   body + `,"note":"x"`,
		"escape":           strings.Replace(body, "ingest", `inge\u0073t`, 1),
		"empty member":     body + `,"count":0`,
		"later version":    strings.Replace(body, `"v":3`, `"v":4`, 1),
		"earlier version":  strings.Replace(body, `"v":3`, `"v":2`, 1),
		"no log":           strings.Replace(body, `"log":"`+origin.Log.String()+`",`, "", 1),
		"log of zeros":     strings.Replace(body, origin.Log.String(), LogID{}.String(), 1),
		"log in capitals":  strings.Replace(body, origin.Log.String(), strings.ToUpper(origin.Log.String()), 1),
		"short log":        strings.Replace(body, origin.Log.String(), origin.Log.String()[2:], 1),
		"number spelling":  strings.Replace(body, `"seq":1`, `"seq":1e0`, 1),
		"sequence 0":       strings.Replace(body, `"seq":1`, `"seq":0`, 1),
		"negative":         strings.Replace(body, `"duration":1`, `"duration":-1`, 1),
		"hash in capitals": strings.Replace(body, strings.Repeat("0", 64), strings.Repeat("A", 64), 1),
		"short hash":       strings.Replace(body, strings.Repeat("0", 64), strings.Repeat("0", 63), 1),
		"time":             strings.Replace(body, "2026-01-02T", "2026-01-02 ", 1),
		"time, fewer":      strings.Replace(body, ".000060000Z", ".00006Z", 1),
		"cleaned string":   strings.Replace(body, "ingest", strings.Repeat("x", MaxField+1), 1),
		"not an object":    `[1`,
		"nothing":          ``,
	} {
		t.Run(what, func(t *testing.T) {
			require.NotEqual(t, body, other)
			sum := sha256.Sum256([]byte(other))
			_, _, _, err := decode([]byte(other + `,"hash":"` + hex.EncodeToString(sum[:]) + "\"}\n"))
			require.Error(t, err)
		})
	}
}

func TestParseHead(t *testing.T) {
	_, head := chainLines(origin, examples()...)
	for _, h := range []Head{{}, origin, head, {Log: head.Log, Seq: 1<<64 - 1, Hash: head.Hash}} {
		got, err := ParseHead(h.String())
		require.NoError(t, err)
		require.Equal(t, h, got)
	}
	zeros, none, log := strings.Repeat("0", 64), LogID{}.String(), origin.Log.String()
	for _, s := range []string{
		"", ":", "1:" + zeros, none, none + ":1:" + zeros, none[1:] + ":0:" + zeros, strings.ToUpper(log) + ":1:" + zeros, log + ":1:" + zeros + ":",
	} {
		h, err := ParseHead(s)
		require.ErrorContains(t, err, "want LOG:SEQ:HASH", s)
		require.Zero(t, h)
	}
	for _, s := range []string{
		"", ":", "1", "1:", "x:" + zeros, "-1:" + zeros, "+1:" + zeros, "01:" + zeros, "1:" + zeros[1:], "1:" + zeros + "0",
		"1:" + strings.Repeat("A", 64), "1:" + strings.Repeat("g", 64), "0:" + strings.Repeat("1", 64), "18446744073709551616:" + zeros, " 1:" + zeros,
	} {
		h, err := ParseHead(log + ":" + s)
		require.ErrorContains(t, err, "want LOG:SEQ:HASH", s)
		require.Zero(t, h)
	}
}
