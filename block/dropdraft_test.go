package block

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/vault"
)

// aDraft is the draft of a store "a" with two keys and two copies.
func aDraft() (Receipt, inner.InstanceID) {
	own := inner.InstanceID{7}
	first, second := vault.KeyID{Vault: "mem:v", Name: "k", Version: "1"}, vault.KeyID{Vault: "mem:v", Name: "k", Version: "2"}
	r := emptyDraft("a", own)
	r.Store[0], r.Generation, r.Incomplete = 1, 5, false
	r.Keys = []ReceiptKey{{Key: first, State: KeyExists, PublicKey: strings.Repeat("ab", 32)}, {Key: second, State: KeyUnknown}}
	for _, n := range []string{"01", "02"} {
		r.Copies = append(r.Copies, Copy{Instance: strings.Repeat(n, 16), Path: "/copy \xef\xbf\xbd", Made: time.Unix(1000, 0).UTC(), KEK: second, Generation: 4, KEKs: []vault.KeyID{first, second}, Doubt: "because"})
	}
	return r, own
}

// A draft is believed only if it is what a drop of that store writes.
func TestDraftOfAReceipt(t *testing.T) {
	good, own := aDraft()
	b, err := json.Marshal(good)
	require.NoError(t, err)
	got, err := decodeDraft(b, "a", own)
	require.NoError(t, err)
	require.Equal(t, good, got)
	empty, err := json.Marshal(emptyDraft("a", own))
	require.NoError(t, err)
	_, err = decodeDraft(empty, "a", own)
	require.NoError(t, err)

	for name, change := range map[string]func(r *Receipt){
		"of another name":           func(r *Receipt) { r.Name = "b" },
		"of another instance":       func(r *Receipt) { r.Instance = inner.InstanceID{8}.String() },
		"of an erasure":             func(r *Receipt) { r.Dropped = false },
		"with a hash":               func(r *Receipt) { require.NoError(t, r.seal()) },
		"with a time":               func(r *Receipt) { r.Time = time.Unix(1, 0).UTC() },
		"with an end":               func(r *Receipt) { r.Until = time.Unix(1, 0).UTC() },
		"that says it is pinned":    func(r *Receipt) { r.Pinned = true },
		"with records kept":         func(r *Receipt) { r.Kept = 1 },
		"with what remains":         func(r *Receipt) { r.Remains = []string{"here"} },
		"with a file KEK":           func(r *Receipt) { r.FileKEKs = []vault.KeyID{r.Keys[0].Key} },
		"with epochs":               func(r *Receipt) { r.Epochs = []uint32{1} },
		"with a key of no version":  func(r *Receipt) { r.Keys[0].Key.Version = "" },
		"with a wrong public key":   func(r *Receipt) { r.Keys[0].PublicKey = "AB" },
		"with an unknown state":     func(r *Receipt) { r.Keys[1].State = "fine" },
		"with too many keys":        func(r *Receipt) { r.Keys = slices.Repeat(r.Keys, maxDraftKeys) },
		"with a copy twice":         func(r *Receipt) { r.Copies[1] = r.Copies[0] },
		"with copies out of order":  func(r *Receipt) { slices.Reverse(r.Copies) },
		"with a copy of no id":      func(r *Receipt) { r.Copies[0].Instance = "" },
		"with a copy under no KEK":  func(r *Receipt) { r.Copies[0].KEK = vault.KeyID{} },
		"with a copy's KEK unknown": func(r *Receipt) { r.Copies[0].KEKs[0].Version = "" },
		"with too many copies": func(r *Receipt) {
			for n := range register.MaxCopies {
				c := r.Copies[1]
				c.Instance = inner.InstanceID{3, byte(n >> 8), byte(n)}.String()
				r.Copies = append(r.Copies, c)
			}
		},
		"too long": func(r *Receipt) { r.Copies[0].Path = strings.Repeat("x", maxDraft) },
	} {
		r, _ := aDraft()
		change(&r)
		b, err := json.Marshal(r)
		require.NoError(t, err)
		_, err = decodeDraft(b, "a", own)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	for name, bad := range map[string]string{
		"nothing":              "",
		"cut off":              string(b[:len(b)-1]),
		"something after it":   string(b) + " ",
		"a field twice":        strings.Replace(string(b), `{"version":3,`, `{"version":3,"version":3,`, 1),
		"an unknown field":     strings.Replace(string(b), `{"version":3,`, `{"version":3,"more":1,`, 1),
		"another capital":      strings.Replace(string(b), `"name"`, `"Name"`, 1),
		"a number as a string": strings.Replace(string(b), `"generation":5`, `"generation":"5"`, 1),
	} {
		require.NotEqual(t, string(b), bad, name)
		_, err := decodeDraft([]byte(bad), "a", own)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	_, err = decodeDraft([]byte(strings.Replace(string(b), `"version":3`, `"version":4`, 1)), "a", own)
	require.ErrorIs(t, err, ErrVersion)
}

// What a damaged register says of a copy is written so that it can be read back.
func TestDraftOfADamagedRegister(t *testing.T) {
	c := register.Copy{Instance: strings.Repeat("01", 16), Path: "\xff", Made: time.Unix(1<<60, 0).UTC()}
	r := emptyDraft("a", inner.InstanceID{7})
	r.Copies = append(r.Copies, asWritten(c))
	r.Copies[0].KEK = vault.KeyID{Vault: "mem:v", Name: "k", Version: "1"}
	b, err := json.Marshal(r)
	require.NoError(t, err, "a damaged register has any time")
	got, err := decodeDraft(b, "a", inner.InstanceID{7})
	require.NoError(t, err, "and any path")
	require.Equal(t, "\uFFFD", got.Copies[0].Path)
}

// FuzzReceiptDraft holds that a draft which is believed is of that store, and is written as it was read.
func FuzzReceiptDraft(f *testing.F) {
	good, own := aDraft()
	b, err := json.Marshal(good)
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:len(b)/2])
	require.NoError(f, good.seal())
	b, err = json.Marshal(good)
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"version":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeDraft(b, "a", own)
		if err != nil {
			require.True(t, damaged(err), "%v", err)
			return
		}
		require.Equal(t, "a", r.Name)
		require.Empty(t, r.Hash)
		require.LessOrEqual(t, len(r.Copies), register.MaxCopies)
		again, err := json.Marshal(r)
		require.NoError(t, err)
		require.Equal(t, string(b), string(again))
	})
}
