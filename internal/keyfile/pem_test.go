package keyfile

import (
	"bytes"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

func importFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "import", name))
	require.NoError(t, err)
	return b
}

func importPassword(t testing.TB) []byte { return importFile(t, "password.txt") }

// importKey returns what a PKCS#8 file of testdata holds, by the standard
// library alone.
func importKey(t testing.TB, name string) *rsa.PrivateKey {
	t.Helper()
	b, _ := pem.Decode(importFile(t, name))
	require.NotNil(t, b)
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	require.NoError(t, err)
	return key.(*rsa.PrivateKey)
}

// requireAdmissible holds what a caller may rely on of every key that is accepted.
func requireAdmissible(t testing.TB, key *rsa.PrivateKey) {
	t.Helper()
	require.NotNil(t, key)
	require.Equal(t, 2048, key.N.BitLen())
	require.GreaterOrEqual(t, key.E, 65537)
	require.Equal(t, 1, key.E&1)
	require.Len(t, key.Primes, 2)
	require.NoError(t, key.Validate())
	require.Zero(t, new(big.Int).Mul(key.Primes[0], key.Primes[1]).Cmp(key.N))
}

// requireRefused checks an error's kind and text, and that the text keeps secrets.
func requireRefused(t testing.TB, err error, kind error, says string) {
	t.Helper()
	require.ErrorIs(t, err, kind)
	require.ErrorContains(t, err, says)
	require.NotContains(t, err.Error(), string(importPassword(t)))
	require.Less(t, len(err.Error()), 400)
}

func TestParsePEMAccepts(t *testing.T) {
	want := importKey(t, "rsa2048.pem")
	for _, tt := range []struct {
		file string
		fips bool // possible with GODEBUG=fips140=only
	}{
		{"rsa2048.pem", true},
		{"rsa2048-pkcs1.pem", true},
		{"rsa2048-text.pem", true},
		{"rsa2048-from-pfx.pem", true},
		{"bom.pem", true},
		{"utf16le.pem", true},
		{"utf16le-bom.pem", true},
		{"utf16be-bom.pem", true},
		{"indented.pem", true},
		{"cr.pem", true},
		{"text-before.pem", true},
		{"one-line.pem", true},
		{"rsa2048-encrypted-salt16.pem", true},
		{"rsa2048-encrypted.pem", false},
		{"rsa2048-encrypted-aes192.pem", false},
		{"rsa2048-encrypted-aes128.pem", false},
		{"rsa2048-encrypted-sha224.pem", false},
		{"rsa2048-encrypted-sha1.pem", false},
	} {
		t.Run(tt.file, func(t *testing.T) {
			key, err := ParsePEM(importFile(t, tt.file), importPassword(t))
			if fips140.Enforced() && !tt.fips {
				requireRefused(t, err, ErrFIPS, "-saltlen 16")
				return
			}
			require.NoError(t, err)
			require.True(t, key.Equal(want))
			requireAdmissible(t, key)
		})
	}
}

func TestParsePEMNeedsNoPasswordForAPlainKey(t *testing.T) {
	_, err := ParsePEM(importFile(t, "rsa2048.pem"), nil)
	require.NoError(t, err)
}

func TestParsePEMTakesWindowsLineEnds(t *testing.T) {
	_, err := ParsePEM(bytes.ReplaceAll(importFile(t, "rsa2048.pem"), []byte("\n"), []byte("\r\n")), nil)
	require.NoError(t, err)
}

func TestParsePEMRefuses(t *testing.T) {
	for _, tt := range []struct {
		file string
		kind error
		says string
	}{
		{"rsa1024.pem", vault.ErrUnsupportedKey, "its modulus has 1024 bits, want exactly 2048"},
		{"rsa1024-pkcs1.pem", vault.ErrUnsupportedKey, "its modulus has 1024 bits"},
		{"rsa3072.pem", vault.ErrUnsupportedKey, "its modulus has 3072 bits"},
		{"rsa2048-e3.pem", vault.ErrUnsupportedKey, "its public exponent is 3, want at least 65537"},
		{"rsa2048-e33bits.pem", vault.ErrUnsupportedKey, "its public exponent has 33 bits"},
		{"rsa2048-3primes.pem", vault.ErrUnsupportedKey, "more than two prime factors"},
		{"rsa2048-pss.pem", vault.ErrUnsupportedKey, "an RSA-PSS key, which may sign only, not an RSA key"},
		{"ec-p256.pem", vault.ErrUnsupportedKey, "an EC key, not an RSA key: make one with"},
		{"ec-p256-sec1.pem", vault.ErrUnsupportedKey, "an EC key"},
		{"x25519.pem", vault.ErrUnsupportedKey, "a key of the algorithm with the object identifier 1.3.101.110, not an RSA key"},
		{"ed25519.pem", vault.ErrUnsupportedKey, "an Ed25519 key"},
		{"two-keys.pem", ErrInvalid, "several private keys: split it"},
		{"two-kinds.pem", ErrInvalid, "several private keys"},
		{"certificate.pem", ErrInvalid, `no private key, only "CERTIFICATE"`},
		{"rsa2048-public.pem", ErrInvalid, `no private key, only "PUBLIC KEY"`},
		{"rsa2048-legacy-encrypted.pem", ErrInvalid, `the old way of PEM ("Proc-Type"), which is weak: convert it with "openssl pkcs8 -topk8`},
		{"rsa2048-encrypted-des3.pem", ErrInvalid, "encrypted with the cipher 1.2.840.113549.3.7, only PBES2 with PBKDF2 and AES-CBC is read"},
		{"rsa2048-encrypted-pbes1.pem", ErrInvalid, "encrypted with the algorithm 1.2.840.113549.1.12.1.3"},
		{"rsa2048-encrypted-scrypt.pem", ErrInvalid, "encrypted with the key derivation 1.3.6.1.4.1.11591.4.11"},
		{"utf32.pem", ErrInvalid, `it is text in UTF-32: convert it with "iconv -f UTF-32 -t UTF-8 FILE`},
		{"escaped.pem", ErrInvalid, `its line ends are written as "\n", as in JSON: convert it with "printf %b`},
		{"rsa2048.der", ErrInvalid, `no PEM block: it looks like DER; convert it with "openssl pkey -inform DER`},
		{"modern.pfx", ErrInvalid, "no PEM block"},
		{"rsa2048.byok", ErrInvalid, "no PEM block"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			key, err := ParsePEM(importFile(t, tt.file), importPassword(t))
			requireRefused(t, err, tt.kind, tt.says)
			require.Nil(t, key)
		})
	}
}

func TestParsePEMOfAnEncryptedKeyOfAnotherKind(t *testing.T) {
	_, err := ParsePEM(importFile(t, "ec-p256-encrypted.pem"), importPassword(t))
	if fips140.Enforced() {
		requireRefused(t, err, ErrFIPS, "a salt of 8 bytes")
		return
	}
	requireRefused(t, err, vault.ErrUnsupportedKey, "an EC key")
}

func TestParsePEMWithAWrongPassword(t *testing.T) {
	data := importFile(t, "rsa2048-encrypted-salt16.pem")
	_, err := ParsePEM(data, nil)
	requireRefused(t, err, ErrWrongPassword, "it is encrypted, and no password was given")
	// Enough of them that some give well-formed padding by chance (1 in 256).
	for i := range 700 {
		wrong := fmt.Appendf(nil, "wrong-%d", i)
		key, err := ParsePEM(data, wrong)
		requireRefused(t, err, ErrWrongPassword, "the password does not open it, or it is damaged")
		require.NotContains(t, err.Error(), string(wrong))
		require.Nil(t, key)
	}
}

func TestParsePEMTruncatedOrLengthened(t *testing.T) {
	for _, file := range []string{"rsa2048.pem", "rsa2048-pkcs1.pem", "rsa2048-encrypted-salt16.pem"} {
		data := importFile(t, file)
		for n := range len(data) - 1 { // without its last newline it is whole
			_, err := ParsePEM(data[:n], importPassword(t))
			require.Error(t, err, "%s, %d bytes", file, n)
		}
		_, err := ParsePEM(data[:len(data)/2], importPassword(t))
		requireRefused(t, err, ErrCorrupt, "truncated or damaged: it begins 1 PEM blocks, of which 0 can be read")
		_, err = ParsePEM(append(bytes.Clone(data), "more"...), importPassword(t))
		requireRefused(t, err, ErrCorrupt, "there are 4 bytes after its last PEM block")
	}
	_, err := ParsePEM(nil, nil)
	requireRefused(t, err, ErrCorrupt, "the file is empty")
	_, err = ParsePEM(make([]byte, maxSize+1), nil)
	requireRefused(t, err, ErrInvalid, "a key file has at most 1048576")
	_, err = ParsePEM([]byte("hello"), nil)
	requireRefused(t, err, ErrInvalid, "no PEM block")
}

// encoding/pem passes over a damaged block. A file with two keys is not one with
// one key because one of the two is damaged.
func TestParsePEMDoesNotPassOverADamagedKey(t *testing.T) {
	good, other := importFile(t, "rsa2048.pem"), importFile(t, "rsa2048-other.pem")
	damaged := bytes.Replace(other, []byte("\n"), []byte("\n!"), 2)
	for _, data := range [][]byte{
		append(bytes.Clone(good), damaged...),
		append(bytes.Clone(damaged), good...),
		append(bytes.Clone(other[:500]), append([]byte("\n"), good...)...),
		append(bytes.Clone(good), other[:500]...),
	} {
		_, err := ParsePEM(data, nil)
		requireRefused(t, err, ErrCorrupt, "it begins 2 PEM blocks")
	}
}

func TestParsePEMChangedByABit(t *testing.T) {
	want := importKey(t, "rsa2048.pem")
	for _, file := range []string{"rsa2048.pem", "rsa2048-encrypted-salt16.pem"} {
		b, _ := pem.Decode(importFile(t, file))
		// From 200 on, so that no iteration count becomes millions.
		for i := 200; i < len(b.Bytes); i += 5 {
			changed := pem.Block{Type: b.Type, Bytes: bytes.Clone(b.Bytes)}
			changed.Bytes[i] ^= 1 << (i % 8)
			key, err := ParsePEM(pem.EncodeToMemory(&changed), importPassword(t))
			if err == nil {
				require.True(t, key.Equal(want), "%s: byte %d changed gives another key", file, i)
			}
		}
	}
}

func encodePEM(t testing.TB, blockType string, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der})
}

type pkcs1 struct {
	Version                     int
	N, E, D, P, Q, DP, DQ, QInv *big.Int
}

func pkcs1Of(key *rsa.PrivateKey) pkcs1 {
	return pkcs1{0, key.N, big.NewInt(int64(key.E)), key.D, key.Primes[0], key.Primes[1],
		key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv}
}

// fromFactors returns the key of p and q, which need not be prime.
func fromFactors(p, q *big.Int, e int64) (pkcs1, bool) {
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	gcd := new(big.Int).GCD(nil, nil, p1, q1)
	lambda := new(big.Int).Mul(p1, new(big.Int).Div(q1, gcd))
	k := pkcs1{N: new(big.Int).Mul(p, q), E: big.NewInt(e), P: p, Q: q}
	k.D, k.QInv = new(big.Int).ModInverse(k.E, lambda), new(big.Int).ModInverse(q, p)
	if k.D == nil || k.QInv == nil {
		return k, false
	}
	k.DP, k.DQ = new(big.Int).Mod(k.D, p1), new(big.Int).Mod(k.D, q1)
	return k, true
}

func TestParsePEMChecksTheNumbers(t *testing.T) {
	good := pkcs1Of(importKey(t, "rsa2048.pem"))
	plus := func(n *big.Int, i int64) *big.Int { return new(big.Int).Add(n, big.NewInt(i)) }
	for _, tt := range []struct {
		what   string
		change func(*pkcs1)
		says   string
	}{
		{"512 bits", func(k *pkcs1) { k.N = new(big.Int).Rsh(good.N, 1536); k.N.SetBit(k.N, 0, 1) }, "512 bits"},
		{"2047 bits", func(k *pkcs1) { k.N = new(big.Int).Rsh(good.N, 1); k.N.SetBit(k.N, 0, 1) }, "2047 bits"},
		{"2049 bits", func(k *pkcs1) { k.N = plus(new(big.Int).Lsh(good.N, 1), 1) }, "2049 bits"},
		{"negative modulus", func(k *pkcs1) { k.N = new(big.Int).Neg(good.N) }, "do not make up an RSA key"},
		{"even modulus", func(k *pkcs1) { k.N = plus(good.N, 1) }, "do not make up an RSA key"},
		{"exponent 1", func(k *pkcs1) { k.E = big.NewInt(1) }, "exponent is 1, want"},
		{"exponent 65535", func(k *pkcs1) { k.E = big.NewInt(65535) }, "exponent is 65535, want at least 65537"},
		{"exponent 65538", func(k *pkcs1) { k.E = big.NewInt(65538) }, "exponent is even"},
		{"exponent 2^31+1", func(k *pkcs1) { k.E = big.NewInt(1<<31 + 1) }, "exponent has 32 bits"},
		{"negative exponent", func(k *pkcs1) { k.E = big.NewInt(-65537) }, "exponent is -65537"},
		{"another exponent", func(k *pkcs1) { k.E = big.NewInt(65539) }, "do not make up an RSA key"},
		{"another modulus", func(k *pkcs1) { k.N = plus(good.N, 2) }, "do not make up an RSA key"},
		{"another private exponent", func(k *pkcs1) { k.D = plus(good.D, 2) }, "do not make up an RSA key"},
		{"other factors", func(k *pkcs1) { k.P = plus(good.P, 2) }, "do not make up an RSA key"},
		{"another dP", func(k *pkcs1) { k.DP = plus(good.DP, 2) }, "do not make up an RSA key"},
		{"no private exponent", func(k *pkcs1) { k.D = big.NewInt(0) }, "do not make up an RSA key"},
		{"version 1", func(k *pkcs1) { k.Version = 1 }, "more than two prime factors"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			k := good
			tt.change(&k)
			_, err := ParsePEM(encodePEM(t, "RSA PRIVATE KEY", k), nil)
			requireRefused(t, err, vault.ErrUnsupportedKey, tt.says)
		})
	}
	_, err := ParsePEM(encodePEM(t, "RSA PRIVATE KEY", good), nil)
	require.NoError(t, err, "unchanged, it is in order")
}

// crypto/rsa takes factors for prime without looking.
func TestParsePEMFindsFactorsThatAreNotPrime(t *testing.T) {
	good := importKey(t, "rsa2048.pem")
	for c := new(big.Int).Set(good.Primes[0]); ; c.Add(c, big.NewInt(2)) {
		k, ok := fromFactors(c, good.Primes[1], 65537)
		if c.ProbablyPrime(20) || !ok || k.N.BitLen() != 2048 {
			continue
		}
		_, err := ParsePEM(encodePEM(t, "RSA PRIVATE KEY", k), nil)
		requireRefused(t, err, vault.ErrUnsupportedKey, "do not make up an RSA key")
		return
	}
}

// A larger odd exponent is as good as 65537.
func TestParsePEMTakesALargerExponent(t *testing.T) {
	good := importKey(t, "rsa2048.pem")
	for _, e := range []int64{65539, 65543, 65551} {
		if k, ok := fromFactors(good.Primes[0], good.Primes[1], e); ok {
			key, err := ParsePEM(encodePEM(t, "RSA PRIVATE KEY", k), nil)
			require.NoError(t, err)
			requireAdmissible(t, key)
			require.Equal(t, int(e), key.E)
			return
		}
	}
	t.Fatal("none of the exponents fits the key")
}

func TestParsePEMWithBytesAfterTheDER(t *testing.T) {
	for _, file := range []string{"rsa2048.pem", "rsa2048-pkcs1.pem"} {
		b, _ := pem.Decode(importFile(t, file))
		b.Bytes = append(b.Bytes, 0)
		_, err := ParsePEM(pem.EncodeToMemory(b), nil)
		requireRefused(t, err, ErrCorrupt, "there are 1 bytes after its end")
		b.Bytes = b.Bytes[:len(b.Bytes)-2]
		_, err = ParsePEM(pem.EncodeToMemory(b), nil)
		requireRefused(t, err, ErrCorrupt, "it is truncated")
	}
}

func TestParsePEMOfOtherBlocks(t *testing.T) {
	_, err := ParsePEM(pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("x")}), nil)
	requireRefused(t, err, ErrInvalid, "ssh-keygen -p -m PKCS8")
	_, err = ParsePEM(pem.EncodeToMemory(&pem.Block{Type: "DSA PRIVATE KEY", Bytes: []byte("x")}), nil)
	requireRefused(t, err, vault.ErrUnsupportedKey, `a PEM block of type "DSA PRIVATE KEY", want "PRIVATE KEY"`)
}

// resealed returns the encrypted key of testdata with other parameters.
func resealed(t testing.TB, change func(kdf *pbkdf2Params, scheme *pkix.AlgorithmIdentifier, sealed *encryptedPrivateKeyInfo)) []byte {
	t.Helper()
	b, _ := pem.Decode(importFile(t, "rsa2048-encrypted-salt16.pem"))
	var sealed encryptedPrivateKeyInfo
	var params pbes2Params
	var kdf pbkdf2Params
	require.NoError(t, unmarshalWhole(b.Bytes, &sealed))
	require.NoError(t, unmarshalWhole(sealed.Algorithm.Parameters.FullBytes, &params))
	require.NoError(t, unmarshalWhole(params.KDF.Parameters.FullBytes, &kdf))
	change(&kdf, &params.Encryption, &sealed)
	var err error
	params.KDF.Parameters.FullBytes, err = asn1.Marshal(kdf)
	require.NoError(t, err)
	sealed.Algorithm.Parameters.FullBytes, err = asn1.Marshal(params)
	require.NoError(t, err)
	return encodePEM(t, b.Type, sealed)
}

func TestParsePEMChecksTheParametersOfTheEncryption(t *testing.T) {
	type change = func(*pbkdf2Params, *pkix.AlgorithmIdentifier, *encryptedPrivateKeyInfo)
	kdf := func(f func(*pbkdf2Params)) change {
		return func(p *pbkdf2Params, _ *pkix.AlgorithmIdentifier, _ *encryptedPrivateKeyInfo) { f(p) }
	}
	for _, tt := range []struct {
		what   string
		change change
		kind   error
		says   string
	}{
		{"the right key length", kdf(func(p *pbkdf2Params) { p.KeyLength = 32 }), nil, ""},
		{"another key length", kdf(func(p *pbkdf2Params) { p.KeyLength = 16 }), ErrCorrupt, "its key has 16 bytes for a cipher that wants 32"},
		{"no iterations", kdf(func(p *pbkdf2Params) { p.Iterations = 0 }), ErrInvalid, "0 iterations"},
		{"negative iterations", kdf(func(p *pbkdf2Params) { p.Iterations = -1 }), ErrInvalid, "-1 iterations"},
		{"too many iterations", kdf(func(p *pbkdf2Params) { p.Iterations = maxIterations + 1 }), ErrInvalid, "it wants 2000001 iterations of PBKDF2, at most 2000000 are done"},
		{"one iteration more", kdf(func(p *pbkdf2Params) { p.Iterations++ }), ErrWrongPassword, "does not open it"},
		{"an unknown function", kdf(func(p *pbkdf2Params) { p.PRF.Algorithm = oidRSA }), ErrInvalid, "the pseudorandom function 1.2.840.113549.1.1.1"},
		{"a short IV", func(_ *pbkdf2Params, s *pkix.AlgorithmIdentifier, _ *encryptedPrivateKeyInfo) {
			s.Parameters.FullBytes = []byte{4, 1, 0}
		}, ErrCorrupt, "its IV has 1 bytes, want 16"},
		{"half a block", func(_ *pbkdf2Params, _ *pkix.AlgorithmIdentifier, e *encryptedPrivateKeyInfo) {
			e.Data = e.Data[:len(e.Data)-8]
		}, ErrCorrupt, "want a multiple of 16"},
		{"nothing", func(_ *pbkdf2Params, _ *pkix.AlgorithmIdentifier, e *encryptedPrivateKeyInfo) { e.Data = []byte{} }, ErrCorrupt, "its encrypted part has 0 bytes"},
		{"a block less", func(_ *pbkdf2Params, _ *pkix.AlgorithmIdentifier, e *encryptedPrivateKeyInfo) {
			e.Data = e.Data[:len(e.Data)-16]
		}, ErrWrongPassword, "or it is damaged"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, err := ParsePEM(resealed(t, tt.change), importPassword(t))
			if tt.kind == nil {
				require.NoError(t, err)
				return
			}
			requireRefused(t, err, tt.kind, tt.says)
		})
	}
}

func FuzzParsePEM(f *testing.F) {
	files, err := filepath.Glob("testdata/import/*.pem")
	require.NoError(f, err)
	require.Greater(f, len(files), 20)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data, importPassword(f))
		f.Add(data[:len(data)/2], []byte{})
	}
	f.Fuzz(func(t *testing.T, data, password []byte) {
		key, err := ParsePEM(data, password)
		if err != nil {
			require.Nil(t, key)
			require.ErrorIs(t, err, Kind(err))
			return
		}
		requireAdmissible(t, key)
	})
}
