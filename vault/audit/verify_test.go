package audit

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

// numbered returns n records that differ.
func numbered(n int) []Record {
	var out []Record
	for i := range n {
		out = append(out, Record{
			Time: epoch.Add(time.Duration(i) * time.Second), Event: EventOperation, Operation: vault.OpGet,
			Key: "v/keys/kek", Outcome: OutcomeOK, RequestID: strconv.Itoa(i + 1),
		})
	}
	return out
}

func verify(lines [][]byte, opts *VerifyOptions) (Result, error) {
	return Verify(bytes.NewReader(bytes.Join(lines, nil)), opts)
}

// chainHead returns the hash of a line.
func chainHead(line []byte) [32]byte {
	_, _, head, err := decode(line)
	if err != nil {
		panic(err)
	}
	return head.Hash
}

func TestVerify(t *testing.T) {
	lines, head := chainLines(origin, numbered(10)...)
	_, third := chainLines(origin, numbered(3)...)
	other, otherHead := chainLines(origin, append(numbered(9), Record{Time: epoch})...)
	forged, forgedHead := chainLines(origin, append(numbered(10)[:4:4], numbered(10)[5:]...)...)
	elsewhere := Head{Log: LogID{0x99}}
	foreign, foreignHead := chainLines(elsewhere, numbered(10)...)
	continued, _ := chainLines(Head{Log: elsewhere.Log, Seq: head.Seq, Hash: head.Hash}, numbered(1)...)
	var none [][]byte
	for _, tt := range []struct {
		what  string
		lines [][]byte
		opts  *VerifyOptions
		says  string // "" verifies
	}{
		{"as written", lines, nil, ""},
		{"empty", none, nil, ""},
		{"with its head", lines, &VerifyOptions{Head: head}, ""},
		{"with an older head", lines, &VerifyOptions{Head: third}, ""},
		{"archived front", lines[3:], &VerifyOptions{After: third, Head: head}, ""},
		{"archived front, head kept then", lines[3:], &VerifyOptions{After: third, Head: third}, ""},
		{"archived up to now", none, &VerifyOptions{After: head, Head: head}, ""},

		{"first record removed", lines[1:], nil, "line 1 (at byte 0, after record 0): it is record 2"},
		{"record removed", slices.Concat(lines[:4], lines[5:]), nil, "line 5 (at byte 1324, after record 4): it is record 6"},
		{"record doubled", slices.Concat(lines[:4], lines[3:]), nil, "it is record 4"},
		{"two records swapped", slices.Concat(lines[:4], lines[5:6], lines[4:5], lines[6:]), nil, "it is record 6"},
		{"last record replaced, nothing kept", slices.Concat(lines[:9], other[9:]), nil, ""}, // the limit of a chain without a kept head
		{"last record replaced", slices.Concat(lines[:9], other[9:]), &VerifyOptions{Head: head}, "record 10 is not the one of the kept head"},
		{"spliced from another chain", slices.Concat(lines[:6], forged[6:]), nil, "of another chain"},
		{"end removed, nothing kept", lines[:7], nil, ""}, // the limit of a chain without a kept head
		{"end removed", lines[:7], &VerifyOptions{Head: head}, "the log ends here, but went on to record 10"},
		{"all removed", none, &VerifyOptions{Head: head}, "went on to record 10"},
		{"rewritten, nothing kept", forged, nil, ""}, // likewise
		{"rewritten", forged, &VerifyOptions{Head: Head{Log: head.Log, Seq: 9, Hash: head.Hash}}, "record 9 is not the one of the kept head"},
		{"rewritten and shorter", forged, &VerifyOptions{Head: head}, "went on to record 10"},
		{"another log, nothing known", foreign, nil, ""}, // likewise
		{"with its identity", lines, &VerifyOptions{Head: origin}, ""},
		{"another log", foreign, &VerifyOptions{Head: origin}, "it is a record of another log, " + elsewhere.Log.String() + " instead of " + origin.Log.String()},
		{"another log, with a head", foreign, &VerifyOptions{Head: head}, "a record of another log"},
		{"another log, with a head from its front", foreign, &VerifyOptions{Head: third}, "a record of another log"},
		{"another log, archived front", foreign[3:], &VerifyOptions{After: third}, "a record of another log"},
		{"another log's archived front", lines[3:], &VerifyOptions{After: third, Head: foreignHead}, "the kept head is one of the log " + elsewhere.Log.String()},
		{"a record of another log that fits", slices.Concat(lines, continued)[1:], &VerifyOptions{After: Head{Log: origin.Log, Seq: 1, Hash: chainHead(lines[0])}}, "line 10"},
		{"front archived, not said", lines[3:], nil, "it is record 4"},
		{"front archived, another said", lines[3:], &VerifyOptions{After: Head{Log: head.Log, Seq: 3, Hash: head.Hash}}, "of another chain"},
		{"kept head is of the archived part", lines[3:], &VerifyOptions{After: third, Head: Head{Log: head.Log, Seq: 2, Hash: head.Hash}}, "does not lie behind"},
		{"kept head is not where it begins", lines[3:], &VerifyOptions{After: third, Head: Head{Log: head.Log, Seq: 3, Hash: head.Hash}}, "does not lie behind"},
		{"empty line", slices.Concat(lines[:4], [][]byte{[]byte("\n")}, lines[4:]), nil, "it does not end with a hash"},
		{"carriage returns", slices.Concat(lines[:4], [][]byte{append(slices.Clone(lines[4][:len(lines[4])-1]), '\r', '\n')}), nil, "it does not end with a hash"},
		{"endless line", [][]byte{bytes.Repeat([]byte("x"), maxLine+1)}, nil, "more than 98304 bytes"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			result, err := verify(tt.lines, tt.opts)
			if tt.says == "" {
				require.NoError(t, err)
				require.Equal(t, uint64(len(tt.lines)), result.Records)
				return
			}
			require.ErrorIs(t, err, ErrCorrupt)
			require.NotErrorIs(t, err, ErrTorn)
			require.ErrorContains(t, err, tt.says)
			var c *CorruptError
			require.ErrorAs(t, err, &c)
			require.Equal(t, result.Head, c.After, "the result tells of the part that is in order")
			require.LessOrEqual(t, result.Records, uint64(9))
		})
	}
	require.NotEqual(t, otherHead, head)
	require.NotEqual(t, forgedHead, head)
}

// TestEachByte: no byte of a log can be changed, removed or added unseen.
func TestEachByte(t *testing.T) {
	lines, head := chainLines(origin, examples()...)
	log := bytes.Join(lines, nil)
	check := func(altered []byte, what string, at int) {
		t.Helper()
		result, err := Verify(bytes.NewReader(altered), &VerifyOptions{Head: head})
		require.ErrorIs(t, err, ErrCorrupt, "%s at %d", what, at)
		require.Less(t, result.Records, uint64(len(lines)))
	}
	for i := range log {
		for bit := range 8 {
			altered := slices.Clone(log)
			altered[i] ^= 1 << bit
			check(altered, "flip", i)
		}
		check(slices.Delete(slices.Clone(log), i, i+1), "removal", i)
		for _, b := range []byte{0, ' ', '\n', '0', log[i]} {
			if inserted := slices.Insert(slices.Clone(log), i, b); !bytes.HasPrefix(inserted, log) {
				check(inserted, "insertion", i)
			}
		}
		check(log[:i], "cut", i)
	}
}

// TestTorn: each length of a log that was cut off.
func TestTorn(t *testing.T) {
	lines, _ := chainLines(origin, numbered(3)...)
	log := bytes.Join(lines, nil)
	ends := map[int]uint64{0: 0, len(lines[0]): 1, len(lines[0]) + len(lines[1]): 2, len(log): 3}
	whole, last := uint64(0), 0
	for n := range len(log) + 1 {
		records, isEnd := ends[n]
		if isEnd {
			whole, last = records, n
		}
		result, err := Verify(bytes.NewReader(log[:n]), nil)
		require.Equal(t, whole, result.Records)
		require.Equal(t, n-last, result.Torn)
		if isEnd {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrTorn)
			require.NotErrorIs(t, err, ErrCorrupt)
		}
	}
}

func TestVerifyReports(t *testing.T) {
	lines, _ := chainLines(origin, examples()...)
	broken := errors.New("disk on fire")
	_, err := Verify(io.MultiReader(bytes.NewReader(lines[0]), iotest.ErrReader(broken)), nil)
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, ErrCorrupt)

	result, err := Verify(iotest.OneByteReader(bytes.NewReader(bytes.Join(lines, nil))), nil)
	require.NoError(t, err)
	require.Equal(t, uint64(5), result.Records)
}

func TestRecordsStops(t *testing.T) {
	lines, _ := chainLines(origin, numbered(5)...)
	lines[3][10] ^= 1
	var got []string
	var last error
	for r, err := range Records(bytes.NewReader(bytes.Join(lines, nil)), nil) {
		last = err
		if err == nil {
			got = append(got, r.RequestID)
		} else {
			require.Zero(t, r)
		}
	}
	require.Equal(t, []string{"1", "2", "3"}, got)
	require.ErrorIs(t, last, ErrCorrupt, "the error is the last step")

	for range Records(bytes.NewReader(lines[0]), nil) {
		break // is allowed
	}
}

// FuzzVerify holds that Verify never fails in another way than it says, and that
// what verifies is, byte for byte, what a log writes.
func FuzzVerify(f *testing.F) {
	lines, _ := chainLines(origin, examples()...)
	log := bytes.Join(lines, nil)
	f.Add(log)
	f.Add(log[:len(log)-1])
	f.Add(log[1:])
	f.Add(slices.Concat(lines[1], lines[0]))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		result, err := Verify(bytes.NewReader(input), nil)
		if err != nil && !errors.Is(err, ErrTorn) {
			require.NotEqual(t, errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion), "one of the two: %v", err)
			return
		}
		prev, written := Head{Log: result.Head.Log}, []byte{}
		for r, err := range Records(bytes.NewReader(input), nil) {
			if err != nil {
				require.ErrorIs(t, err, ErrTorn)
				break
			}
			var line []byte
			line, prev = encode(prev, r)
			written = append(written, line...)
		}
		require.Equal(t, result.Head, prev)
		require.Equal(t, string(input[:len(input)-result.Torn]), string(written))
	})
}

// FuzzRecord holds that whatever is recorded reads back, cleaned.
func FuzzRecord(f *testing.F) {
	f.Add("ingest", "store", "v/keys/kek", "detail", int64(5), uint64(0), int64(0))
	f.Add("\xff", "\x00", "\u2028", `"\`, int64(-1), uint64(1<<64-1), int64(1)<<62)
	f.Fuzz(func(t *testing.T, identity, store, key, detail string, duration int64, count uint64, unix int64) {
		r := Record{
			Time: time.Unix(unix, 0), Event: EventOperation, Identity: identity, Store: store, Key: key, Detail: detail,
			Duration: time.Duration(duration), Count: count,
		}
		line, head := encode(Head{Log: origin.Log, Seq: 41}, r)
		require.LessOrEqual(t, len(line), maxLine)
		got, prev, gotHead, err := decode(line)
		require.NoError(t, err)
		require.Equal(t, Head{Log: origin.Log, Seq: 41}, prev)
		require.Equal(t, head, gotHead)
		require.Equal(t, clean(identity), got.Identity)
		require.Equal(t, clean(store), got.Store)
		require.Equal(t, clean(key), got.Key)
		require.Equal(t, clean(detail), got.Detail)
		require.Equal(t, max(time.Duration(duration), 0), got.Duration)
		require.Equal(t, count, got.Count)
	})
}

// A reader of records gets each once, and the error last, whatever it does: it may stop early, and
// it may go on after an error, at which there is nothing more.
func TestRecordsEnd(t *testing.T) {
	lines, head := chainLines(origin, numbered(5)...)
	whole := bytes.Join(lines, nil)
	read := func(log []byte, opts *VerifyOptions, most int) (n int, last error) {
		for r, err := range Records(bytes.NewReader(log), opts) {
			if last = err; err != nil {
				require.Equal(t, Record{}, r)
				continue // not break: the next step must not come
			}
			require.NotEqual(t, Record{}, r, "a record that is none")
			if n++; n == most {
				break
			}
		}
		return n, last
	}
	for _, tt := range []struct {
		what string
		log  []byte
		opts *VerifyOptions
		most int
		n    int
		is   error
	}{
		{"to the end", whole, &VerifyOptions{Head: head}, 9, 5, nil},
		{"stopped early", whole, nil, 2, 2, nil},
		{"altered", bytes.Replace(whole, []byte("kek"), []byte("kex"), 1), nil, 9, 0, ErrCorrupt},
		{"torn", whole[:len(whole)-7], nil, 9, 4, ErrTorn},
		{"torn, and the kept head is in what was torn off", whole[:len(whole)-7], &VerifyOptions{Head: head}, 9, 4, ErrCorrupt},
	} {
		t.Run(tt.what, func(t *testing.T) {
			n, err := read(tt.log, tt.opts, tt.most)
			require.Equal(t, tt.n, n)
			if tt.is == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, tt.is)
			}
		})
	}
}
