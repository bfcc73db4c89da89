package adversary

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/vault"
)

// secrets is everything that must be nowhere but in memory: by name, the bytes.
type secrets struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (s *secrets) add(name string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string][]byte{}
	}
	s.m[fmt.Sprintf("%s %d", name, len(s.m))] = bytes.Clone(b)
}

// needles returns each secret in each form in which it could have got out, 16 bytes of
// it at least. Half of a key is as bad as all of it to whoever looks, so that halves
// are looked for.
func (s *secrets) needles() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]byte{}
	for name, b := range s.m {
		out[name] = b
		half := b[:max(len(b)/2, min(len(b), 12))]
		out[name+", half"] = half
		out[name+", hex"] = []byte(hex.EncodeToString(half))
		out[name+", HEX"] = []byte(strings.ToUpper(hex.EncodeToString(half)))
		// As fmt prints a slice of bytes, and as %#v does.
		list := strings.Trim(fmt.Sprint(half), "[]")
		out[name+", decimal"] = []byte(list)
		gosyntax := fmt.Sprintf("%#v", half)
		out[name+", Go syntax"] = []byte(gosyntax[len("[]byte{") : len(gosyntax)-1])
		// In base64 a string begins at one of three offsets; what lies inside of it is
		// found whichever it is.
		for i := range 3 {
			inner := base64.StdEncoding.EncodeToString(append(make([]byte, i), b...))
			skip, cut := (8*i+5)/6, (len(b)+i)%3
			inner = strings.TrimRight(inner, "=")
			if cut != 0 {
				inner = inner[:len(inner)-1]
			}
			out[fmt.Sprintf("%s, base64 at %d", name, i)] = []byte(inner[skip:min(len(inner), skip+22)])
		}
	}
	return out
}

// window is what a needle is found by.
const window = 8

// none requires that no secret is in b, in whatever form.
func (s *secrets) none(t testing.TB, where string, b []byte) {
	t.Helper()
	type needle struct {
		name string
		b    []byte
	}
	byStart := map[uint64][]needle{}
	for name, n := range s.needles() {
		start := binary.LittleEndian.Uint64(n)
		byStart[start] = append(byStart[start], needle{name, n})
	}
	for i := 0; i+window <= len(b); i++ {
		for _, n := range byStart[binary.LittleEndian.Uint64(b[i:])] {
			if bytes.HasPrefix(b[i:], n.b) {
				t.Errorf("%s: %s is in it, at %d of %d bytes: %.200q", where, n.name, i, len(b), b[max(0, i-100):min(len(b), i+50)])
				return
			}
		}
	}
}

// watched passes each call on, and takes note of what is wrapped and unwrapped.
type watched struct {
	vault.Vault
	s *secrets
}

func (w watched) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	w.s.add("wrapped secret", secret)
	return w.Vault.WrapKey(ctx, id, secret)
}

func (w watched) UnwrapKey(ctx context.Context, wrapped vault.Wrapped) ([]byte, error) {
	got, err := w.Vault.UnwrapKey(ctx, wrapped)
	if err == nil {
		w.s.add("unwrapped secret", got)
	}
	return got, err
}

// open is AES-256-GCM with the nonce in front.
func open(key, sealed, aad []byte) ([]byte, bool) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, false
	}
	aead, err := cipher.NewGCMWithRandomNonce(b)
	if err != nil {
		return nil, false
	}
	out, err := aead.Open(nil, nil, sealed, aad)
	return out, err == nil
}

// addStore opens what a closed store's engine holds with the secrets that are known,
// as docs/format.md has it, and adds the keys that it comes to.
func (s *secrets) addStore(t testing.TB, records map[string]string) {
	document := []byte(records[documentKey])
	header := []byte(headerOf(string(document)))
	var body []byte
	for _, secret := range s.known() {
		if len(secret) == 32 {
			if b, ok := open(secret, document[len(header):], header); ok {
				body = b
			}
		}
	}
	require.NotEmpty(t, body, "the document's secret went through the vault")
	s.add("store secret", body[:32])
	epochs := map[string][]byte{}
	for e := body[103:]; len(e) > 0; e = e[52:] {
		epochs[string(e[:4])] = e[20:52]
		s.add("epoch key", e[20:52])
	}
	store := string(document[14:30])
	deks := 0
	for key, value := range records {
		if key[0] != 2 {
			continue
		}
		head := map[byte]int{1: 5, 2: 9}[value[0]]
		inner, ok := open(epochs[value[1:5]], []byte(value[head:]), []byte(value[:head]+store+key[5:]))
		require.True(t, ok)
		if value[0] == 1 {
			s.add("DEK", inner)
			deks++
		}
	}
	t.Logf("%d epoch keys, %d DEKs", len(epochs), deks)
}

func (s *secrets) known() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]byte
	for _, b := range s.m {
		out = append(out, b)
	}
	return out
}

// addVault opens a vault file with its passphrase, as docs/format.md, section 10, has
// it, and adds its keys.
func (s *secrets) addVault(t testing.TB, path string, passphrase []byte) {
	f, err := os.ReadFile(path)
	require.NoError(t, err)
	require.EqualValues(t, 2, f[26], "PBKDF2")
	key, err := pbkdf2.Key(sha256.New, string(passphrase), f[36:68], int(binary.BigEndian.Uint32(f[27:])), 32)
	require.NoError(t, err)
	master, ok := open(key, f[68:128], f[:68])
	require.True(t, ok)
	s.add("passphrase", passphrase)
	s.add("passphrase key", key)
	s.add("master key", master)
	body, ok := open(master, f[172:], f[:172])
	require.True(t, ok)
	require.Contains(t, string(body), `"keys"`)
}

// testKeys returns RSA keys that are made for tests, and adds their private halves.
func (s *secrets) testKeys(t testing.TB, n int) []*rsa.PrivateKey {
	pairs, err := testkeys.Pairs()
	require.NoError(t, err)
	for _, k := range pairs[:n] {
		s.add("RSA private exponent", k.D.Bytes())
		s.add("RSA prime", k.Primes[0].Bytes())
		s.add("RSA prime", k.Primes[1].Bytes())
	}
	return pairs[:n]
}

// The search finds what it is to find: a test of the test.
func TestSecretsAreFound(t *testing.T) {
	var s secrets
	key := []byte("0123456789abcdef\x00\xff\x80ghijklmnopqrs")
	s.add("key", key)
	wide := append([]byte("in front"), key...)
	for what, text := range map[string]string{
		"raw": "x" + string(key) + "y", "hex": hex.EncodeToString(key), "HEX": fmt.Sprintf("%X", key), "print": fmt.Sprint(key),
		"Go": fmt.Sprintf("%#v", key), "struct": fmt.Sprintf("%+v", struct{ K [32]byte }{[32]byte(key)}),
		"base64": base64.StdEncoding.EncodeToString(key), "inside": base64.RawURLEncoding.EncodeToString(wide),
		"shifted": base64.StdEncoding.EncodeToString(wide[1:]), "shifted 2": base64.StdEncoding.EncodeToString(wide[2:]),
	} {
		found := false
		for _, n := range s.needles() {
			found = found || bytes.Contains([]byte(text), n)
		}
		require.True(t, found, what)
	}
}
