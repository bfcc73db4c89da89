package keyfile

import (
	"bytes"
	"crypto/fips140"
	"encoding/binary"
	"fmt"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
)

// A file in every encoding is recognised as what it is, and read by the function that
// tells formats apart.
func TestParseInEveryEncoding(t *testing.T) {
	want := importKey(t, "rsa2048.pem")
	for _, file := range []string{"bom.pem", "utf16le.pem", "utf16le-bom.pem", "utf16be-bom.pem", "indented.pem", "cr.pem", "text-before.pem", "one-line.pem"} {
		data := importFile(t, file)
		require.Equal(t, PEM, FormatOf(data), file)
		key, err := Parse(data, nil)
		require.NoError(t, err, file)
		require.True(t, key.Equal(want), file)
		require.Equal(t, importFile(t, file), data, "the caller's bytes are not touched")
	}
	for _, file := range []string{"bom.byok", "utf16le-bom.byok"} {
		require.Equal(t, Transfer, FormatOf(importFile(t, file)), file)
	}
	for _, file := range []string{"ber.pfx", "ber-inside.pfx"} {
		require.Equal(t, PFX, FormatOf(importFile(t, file)), file)
	}
	_, err := Parse(importFile(t, "utf32.pem"), nil)
	requireRefused(t, err, ErrInvalid, "it is text in UTF-32")
}

// What is damaged in such an encoding is damaged all the same, and two keys are two.
func TestDamagedInAnotherEncoding(t *testing.T) {
	one, two := importFile(t, "utf16le-bom.pem"), importFile(t, "rsa2048-other.pem")
	_, err := ParsePEM(one[:len(one)/2], nil)
	requireRefused(t, err, ErrCorrupt, "it begins 1 PEM blocks, of which 0 can be read")
	_, err = ParsePEM(append(importFile(t, "cr.pem"), bytes.ReplaceAll(two, []byte("\n"), []byte("\r"))...), nil)
	requireRefused(t, err, ErrInvalid, "several private keys")
	_, err = ParsePEM(append(importFile(t, "indented.pem"), two[:700]...), nil)
	requireRefused(t, err, ErrCorrupt, "it begins 2 PEM blocks, of which 1 can be read")
	_, err = ParsePEM(append(importFile(t, "text-before.pem"), "more"...), nil)
	requireRefused(t, err, ErrCorrupt, "there are 4 bytes after its last PEM block")
	_, err = ParseBYOK(importFile(t, "utf16le-bom.byok")[:500])
	requireRefused(t, err, ErrCorrupt, "JSON is")
}

// An encrypted key keeps the headers and parameters that say how.
func TestEncryptedInAnotherEncoding(t *testing.T) {
	indent := func(file string) []byte {
		return append([]byte("  "), bytes.ReplaceAll(importFile(t, file), []byte("\n"), []byte("\r\n  "))...)
	}
	key, err := ParsePEM(indent("rsa2048-encrypted-salt16.pem"), importPassword(t))
	require.NoError(t, err)
	require.True(t, key.Equal(importKey(t, "rsa2048.pem")))
	_, err = ParsePEM(indent("rsa2048-legacy-encrypted.pem"), importPassword(t))
	requireRefused(t, err, ErrInvalid, `the old way of PEM ("Proc-Type")`)
}

func TestText(t *testing.T) {
	for _, s := range []string{"{}", "plain", "é and \U0001F511", "\r\n"} {
		units := utf16.Encode([]rune(s))
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			encoded := order.AppendUint16(nil, 0xfeff)
			for _, u := range units {
				encoded = order.AppendUint16(encoded, u)
			}
			require.Equal(t, s, string(Text(encoded)), "%v", order)
		}
		require.Equal(t, s, string(Text([]byte("\xef\xbb\xbf"+s))))
		require.Equal(t, s, string(Text([]byte(s))))
	}
	for _, s := range []string{"", "a", "\x00", "\x30\x82\x00\x00", "\xff\xfe\x00\x00a\x00\x00\x00"} {
		require.Equal(t, s, string(Text([]byte(s))))
	}
	// Half a character at the end, and half of a pair.
	require.Equal(t, "a", string(Text([]byte("\xff\xfea\x00b"))))
	require.Equal(t, "a\uFFFD", string(Text([]byte("\xff\xfea\x00\x3d\xd8"))))
}

// ber encodes DER as Mozilla's programs do: lengths indefinite, octet strings in pieces.
func ber(t *testing.T, der []byte) []byte {
	t.Helper()
	id, body, rest, indefinite, err := berHeader(der)
	require.NoError(t, err)
	require.False(t, indefinite)
	out := append([]byte{}, id...)
	switch {
	case id[0] == 0x04:
		out = []byte{0x24, 0x80}
		for len(body) > 0 {
			n := min(len(body), 100)
			out, body = append(append(out, 0x04, byte(n)), body[:n]...), body[n:]
		}
		out = append(out, 0, 0)
	case id[0]&0x20 != 0:
		out = append(out, 0x80)
		out = append(append(out, ber(t, body)...), 0, 0)
	default: // a length with more bytes than it needs
		out = append(out, 0x84, byte(len(body)>>24), byte(len(body)>>16), byte(len(body)>>8), byte(len(body)))
		out = append(out, body...)
	}
	if len(rest) > 0 {
		out = append(out, ber(t, rest)...)
	}
	return out
}

func TestToDER(t *testing.T) {
	for _, file := range []string{"modern.pfx", "legacy.pfx", "chain.pfx", "key-only.pfx"} {
		der := importFile(t, file)
		got, err := toDER(der)
		require.NoError(t, err)
		require.Equal(t, der, got, "DER is what it was")
		require.False(t, isBER(der))
		got, err = toDER(ber(t, der))
		require.NoError(t, err)
		require.Equal(t, der, got)
		require.True(t, isBER(ber(t, der)))
		if !fips140.Enforced() {
			key, err := ParsePFX(ber(t, der), string(importPassword(t)))
			require.NoError(t, err)
			require.True(t, key.Equal(importKey(t, "rsa2048.pem")))
		}
	}
	for _, bad := range []string{"", "\x30", "\x30\x80", "\x30\x80\x00", "\x04\x80\x00\x00", "\x24\x80\x02\x01\x03\x00\x00", "\x24\x03\x02\x01\x03",
		"\x30\x05\x04\x01", "\x30\x89\x01\x01\x01\x01\x01\x01\x01\x01\x01", "\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff", "\x1f\x81"} {
		_, err := toDER([]byte(bad))
		require.ErrorIs(t, err, errBER, "%x", bad)
	}
	_, err := toDER(bytes.Repeat([]byte{0x30, 0x80}, 1000))
	require.ErrorIs(t, err, errBER, "too deep")
	_, err = toDER(make([]byte, maxSize+1))
	require.ErrorIs(t, err, errBER)
}

// FuzzToDER holds that what is converted is DER to the converter, stays within a bound of
// what it was, and that nothing panics.
func FuzzToDER(f *testing.F) {
	for _, file := range []string{"ber.pfx", "ber-inside.pfx", "modern.pfx", "rsa2048.der"} {
		f.Add(importFile(f, file))
	}
	f.Add([]byte{0x24, 0x80, 0x24, 0x80, 0x04, 0x01, 0x61, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		der, err := toDER(data)
		if err != nil {
			require.Nil(t, der)
			return
		}
		require.LessOrEqual(t, len(der), 2*len(data))
		again, err := toDER(der)
		if len(der) <= maxSize {
			require.NoError(t, err)
			require.Equal(t, der, again, fmt.Sprintf("%x", data))
		}
	})
}

// FuzzText holds that text decodes to what no longer has a mark or a NUL at its front, and
// that straightening changes nothing but white space.
func FuzzText(f *testing.F) {
	for _, file := range []string{"bom.pem", "utf16le.pem", "utf16be-bom.pem", "indented.pem", "cr.pem", "one-line.pem", "rsa2048-legacy-encrypted.pem"} {
		f.Add(importFile(f, file))
	}
	without := func(b []byte) string {
		return string(bytes.Map(func(r rune) rune {
			if r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\u00a0' {
				return -1
			}
			return r
		}, bytes.ToValidUTF8(b, nil)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		text := Text(data)
		require.LessOrEqual(t, len(text), 2*len(data))
		require.Equal(t, without(text), without(straighten(text)))
		require.Equal(t, before, data)
	})
}
