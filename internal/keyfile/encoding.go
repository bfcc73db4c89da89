package keyfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"unicode/utf16"
)

// Text returns a file that is text as UTF-8 without a byte order mark: editors and shells
// of Windows write PEM and JSON with one, and in UTF-16. What is no text, or is UTF-8
// already, is returned as it is; a copy is the caller's to clear. UTF-16 without a mark is
// known by its first character: the formats that are read begin with one of ASCII.
func Text(data []byte) []byte {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return data[3:]
	case isUTF32(data) || len(data) < 2 || len(data) > maxSize:
		return data
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return fromUTF16(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return fromUTF16(data[2:], binary.BigEndian)
	case isASCII(data[0]) && data[1] == 0:
		return fromUTF16(data, binary.LittleEndian)
	case isASCII(data[1]) && data[0] == 0:
		return fromUTF16(data, binary.BigEndian)
	}
	return data
}

// isASCII reports whether c is printable or white space. The first byte of DER, 0x30, is
// also "0", but is not followed by 0 there: that would be an empty element.
func isASCII(c byte) bool { return c >= ' ' && c <= '~' || c == '\n' || c == '\r' || c == '\t' }

func isUTF32(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xff\xfe\x00\x00")) || bytes.HasPrefix(data, []byte("\x00\x00\xfe\xff"))
}

// fromUTF16 decodes UTF-16; an odd byte at the end is left out, as that of a file that
// was cut, which the parser of what is left tells.
func fromUTF16(data []byte, order binary.ByteOrder) []byte {
	out := make([]byte, 0, len(data)/2)
	var units [2]uint16
	for len(data) >= 2 {
		units[0], data = order.Uint16(data), data[2:]
		n := 1
		if utf16.IsSurrogate(rune(units[0])) && len(data) >= 2 {
			units[1], data, n = order.Uint16(data), data[2:], 2
		}
		out = utf16AppendUTF8(out, units[:n])
	}
	return out
}

func utf16AppendUTF8(out []byte, units []uint16) []byte {
	for _, r := range utf16.Decode(units) {
		out = append(out, string(r)...)
	}
	return out
}

// checkText names an encoding that is not read.
func checkText(data []byte) error {
	if isUTF32(data) {
		return fmt.Errorf(`it is text in UTF-32: convert it with "iconv -f UTF-32 -t UTF-8 FILE > FILE.new": %w`, ErrInvalid)
	}
	return nil
}

// pemLine matches the lines around a PEM block, wherever they stand.
var pemLine = regexp.MustCompile(`-----(BEGIN|END) [A-Z0-9 ]+-----`)

// straighten returns a PEM file as encoding/pem takes it: each of the lines around a block
// on a line of its own, without what is indented, and with line feeds. It changes white
// space alone, and the result is the caller's to clear.
func straighten(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for i, c := range data {
		switch {
		case c != '\r':
			out = append(out, c)
		case i+1 == len(data) || data[i+1] != '\n':
			out = append(out, '\n') // the old line ends of Macs
		}
	}
	alone := pemLine.ReplaceAll(out, []byte("\n$0\n"))
	clear(out)
	const white = " \t\u00a0"
	lines := bytes.Split(alone, []byte("\n"))
	straight := make([]byte, 0, len(alone))
	for i, l := range lines {
		if i > 0 && len(l) == 0 && bytes.HasPrefix(bytes.TrimLeft(lines[i-1], white), []byte("-----BEGIN ")) {
			continue // headers follow the line at once
		}
		straight = append(append(straight, bytes.Trim(l, white)...), '\n')
	}
	clear(alone)
	return straight
}
