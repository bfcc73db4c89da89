package keyring

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// In JSON ids are hexadecimal digits, states and kinds are words, errors are their texts, and
// fields have names like generation and lastCheck. Durations are nanoseconds.

// MarshalText implements [encoding.TextMarshaler]: 32 hexadecimal digits.
func (id StoreID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *StoreID) UnmarshalText(text []byte) error { return unhex(id[:], text, "store id") }

func unhex(dst, text []byte, what string) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("keyring: a %s has %d hexadecimal digits, not %d characters", what, 2*len(dst), len(text))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("keyring: a %s: %w", what, err)
	}
	return nil
}

// MarshalText implements [encoding.TextMarshaler]: what String returns.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Status) UnmarshalText(text []byte) error {
	for is := range Closed + 1 {
		if string(text) == is.String() {
			*s = is
			return nil
		}
	}
	return fmt.Errorf("keyring: there is no status %q", text)
}

// MarshalText implements [encoding.TextMarshaler]: what String returns.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalText implements [encoding.TextMarshaler]: what String returns.
func (w Wrapping) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// message is an error in JSON: its text, or "" if there is none.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// MarshalJSON implements [json.Marshaler].
func (s State) MarshalJSON() ([]byte, error) {
	type plain State
	return json.Marshal(struct {
		plain
		Cause        string `json:"cause,omitempty"`
		LastCheckErr string `json:"lastCheckError,omitempty"`
		AnchorErr    string `json:"anchorError,omitempty"`
	}{plain(s), message(s.Cause), message(s.LastCheckErr), message(s.AnchorErr)})
}

// MarshalJSON implements [json.Marshaler].
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	return json.Marshal(struct {
		plain
		Err string `json:"error,omitempty"`
	}{plain(e), message(e.Err)})
}

// MarshalJSON implements [json.Marshaler].
func (in Info) MarshalJSON() ([]byte, error) {
	type plain Info
	public := map[string]string{}
	for id, sum := range in.PublicKeys {
		public[id.String()] = hex.EncodeToString(sum[:])
	}
	return json.Marshal(struct {
		plain
		PublicKeys map[string]string `json:"publicKeys"`
	}{plain(in), public})
}

// MarshalJSON implements [json.Marshaler].
func (r Relocated) MarshalJSON() ([]byte, error) {
	type plain Relocated
	return json.Marshal(struct {
		plain
		PublicKey string `json:"publicKey"`
	}{plain(r), hex.EncodeToString(r.PublicKey[:])})
}
