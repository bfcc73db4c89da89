package local

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func goldenState(t *testing.T) *state {
	t.Helper()
	st, err := decodeState(goldenBody(t))
	require.NoError(t, err)
	require.Len(t, st.Keys, 2)
	require.Len(t, st.Keys[0].Versions, 2)
	require.Len(t, st.Identities, 1)
	return st
}

// A body is refused if anything in it is not as the rest of the package relies on,
// though nobody can make one without the master key.
func TestDecodeStateRefuses(t *testing.T) {
	for _, tt := range []struct {
		says   string
		change func(st *state)
	}{
		{"retention or its date is out of bounds", func(st *state) { st.RetentionDays = 6 }},
		{"retention or its date is out of bounds", func(st *state) { st.Created = -1 }},
		{"backup secret is missing", func(st *state) { st.BackupSecret = st.BackupSecret[1:] }},
		{"keys are not in order", func(st *state) { st.Keys[0], st.Keys[1] = st.Keys[1], st.Keys[0] }},
		{"keys are not in order", func(st *state) { st.Keys[1].Name = st.Keys[0].Name }},
		{"keys are not in order", func(st *state) { st.Keys = append(st.Keys, nil) }},
		{"may have 0-9", func(st *state) { st.Keys[0].Name = "a/b" }},
		{"has no versions", func(st *state) { st.Keys[0].Versions = nil }},
		{"its dates are out of bounds", func(st *state) { st.Keys[0].Deleted = 1 }},
		{"its dates are out of bounds", func(st *state) { st.Keys[0].PurgeAt = 1 }},
		{"its dates are out of bounds", func(st *state) { st.Keys[0].Kept = 1 }},
		{"its dates are out of bounds", func(st *state) { st.Keys[0].Deleted, st.Keys[0].PurgeAt = 2, 1 }},
		{"its dates are out of bounds", func(st *state) {
			k := st.Keys[0]
			k.Deleted, k.PurgeAt, k.Kept = 1, 2, -1
		}},
		{"retention or its date is out of bounds", func(st *state) { st.Seen = -1 }},
		{"rotation policy has a time of", func(st *state) { st.Keys[0].Policy.RotateAfter = 1 }},
		{"malformed or there twice", func(st *state) { st.Keys[0].Versions[1].ID = st.Keys[0].Versions[0].ID }},
		{"malformed or there twice", func(st *state) { st.Keys[0].Versions[1].ID = "1" }},
		{"malformed or there twice", func(st *state) { st.Keys[0].Versions[1] = nil }},
		{"is before 1970 or after", func(st *state) { st.Keys[0].Versions[0].Expires = maxUnix + 1 }},
		{"expire before it is valid", func(st *state) { st.Keys[0].Versions[0].Expires = 1 }},
		{"its dates are out of bounds", func(st *state) { st.Keys[0].Versions[0].Updated = -1 }},
		{`no operation "sign"`, func(st *state) { st.Keys[0].Versions[0].Operations[0] = "sign" }},
		{"public key is malformed", func(st *state) { st.Keys[0].Versions[0].Public[4]++ }},
		{"has no private key", func(st *state) { st.Keys[0].Versions[0].Private = nil }},
		{"identities are not in order", func(st *state) { st.Identities = append(st.Identities, st.Identities[0]) }},
		{"identities are not in order", func(st *state) { st.Identities[0].Name = "a b" }},
		{"grants are not in order", func(st *state) { st.Identities[0].Grants[0] = "sign" }},
		{"grants are not in order", func(st *state) { g := st.Identities[0].Grants; g[0], g[1] = g[1], g[0] }},
	} {
		st := goldenState(t)
		tt.change(st)
		b, err := json.Marshal(st)
		require.NoError(t, err)
		_, err = decodeState(b)
		require.ErrorContains(t, err, tt.says)
	}
	good := string(goldenBody(t))
	for says, body := range map[string]string{
		"malformed at byte":          "{,",
		"JSON is truncated":          good[:len(good)-1],
		"more after the JSON":        good + "{}",
		"member or a value":          `{"unknown":1}`,
		"value of the wrong type":    `{"created":"1"}`,
		"truncated, or has a member": ``,
	} {
		_, err := decodeState([]byte(body))
		require.ErrorContains(t, err, says)
	}
}

// A change works on a copy: what readers have is never changed.
func TestCloneSharesNothingThatChanges(t *testing.T) {
	st := goldenState(t)
	before, err := st.encode()
	require.NoError(t, err)
	c := st.clone()
	c.RetentionDays++
	c.Keys[0].Deleted, c.Keys[0].PurgeAt = 1, 2
	c.Keys[0].Policy.RotateAfter++
	v := c.Keys[0].Versions[0]
	v.Enabled, v.Expires = !v.Enabled, 0
	v.Operations[0] = "sign"
	v.Operations = append(v.Operations, "sign")
	c.Keys[0].Versions = append(c.Keys[0].Versions, v)
	c.setGrants("ingest", nil)
	c.setGrants("another", []Permission{OpList})
	c.drop(c.Keys[1].Name)
	after, err := st.encode()
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}
