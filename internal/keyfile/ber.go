package keyfile

import (
	"bytes"
	"errors"
)

// PKCS#12 is defined in BER (RFC 7292, appendix D); encoding/asn1 and all that is built on
// it read DER, where each value has one encoding. Some programs, Mozilla's among them, write
// what BER permits besides: lengths that are indefinite, lengths with more bytes than they
// need, strings in pieces. toDER writes the same elements in DER. It looks into nothing but
// constructed elements, so that what a MAC is made over, the content of an OCTET STRING,
// stays what it is.
//
//	identifier | 80 | elements | 00 00          becomes  identifier | length | elements
//	24 | length | OCTET STRINGs (04 or 24)       becomes  04 | length | their contents, joined
const maxBERDepth = 64

var errBER = errors.New("not BER")

// toDER returns the first element of at most [maxSize] bytes in DER, as far as its lengths
// and OCTET STRINGs go, and with it what follows the element; or errBER if it is cut off.
func toDER(ber []byte) ([]byte, error) {
	if len(ber) > maxSize {
		return nil, errBER
	}
	der, rest, err := derElement(nil, ber, 0)
	if err != nil {
		return nil, errBER
	}
	return append(der, rest...), nil
}

// isBER reports whether data begins with an element in BER that is not in DER.
func isBER(data []byte) bool {
	der, err := toDER(data)
	return err == nil && !bytes.Equal(der, data)
}

// derElement appends the first element of ber to out.
func derElement(out, ber []byte, depth int) (der, rest []byte, err error) {
	id, body, rest, indefinite, err := berHeader(ber)
	if err != nil || depth > maxBERDepth {
		return nil, nil, errBER
	}
	constructed := id[0]&0x20 != 0
	if !constructed {
		if indefinite {
			return nil, nil, errBER
		}
		return appendDER(out, id, body), rest, nil
	}
	octets := id[0] == 0x24 // a constructed OCTET STRING
	var content []byte
	for {
		switch {
		case indefinite && bytes.HasPrefix(body, []byte{0, 0}):
			rest = body[2:]
		case indefinite || len(body) > 0:
			before := len(content)
			if content, body, err = derElement(content, body, depth+1); err != nil {
				return nil, nil, err
			}
			if octets {
				piece, contents, _, _, err := berHeader(content[before:])
				if err != nil || piece[0] != 0x04 {
					return nil, nil, errBER
				}
				content = append(content[:before], contents...)
			}
			continue
		}
		break
	}
	if octets {
		id = []byte{0x04}
	}
	return appendDER(out, id, content), rest, nil
}

// berHeader splits an element. With an indefinite length body is all that follows, and
// rest is nothing.
func berHeader(ber []byte) (id, body, rest []byte, indefinite bool, err error) {
	n := 1
	if len(ber) > 0 && ber[0]&0x1f == 0x1f { // a tag of several bytes
		for n < len(ber) && ber[n]&0x80 != 0 {
			n++
		}
		n++
	}
	if len(ber) < n+1 {
		return nil, nil, nil, false, errBER
	}
	id, size, after := ber[:n], int(ber[n]), ber[n+1:]
	switch {
	case size == 0x80:
		return id, after, nil, true, nil
	case size > 0x80:
		count := size - 0x80
		if count > len(after) || count > 8 {
			return nil, nil, nil, false, errBER
		}
		size = 0
		for _, c := range after[:count] {
			if size = size<<8 | int(c); size > maxSize {
				return nil, nil, nil, false, errBER
			}
		}
		after = after[count:]
	}
	if size > len(after) {
		return nil, nil, nil, false, errBER
	}
	return id, after[:size], after[size:], false, nil
}

// appendDER appends an element with the shortest length.
func appendDER(out, id, content []byte) []byte {
	out = append(out, id...)
	switch n := len(content); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 1<<8:
		out = append(out, 0x81, byte(n))
	case n < 1<<16:
		out = append(out, 0x82, byte(n>>8), byte(n))
	default: // at most a little more than maxSize
		out = append(out, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(out, content...)
}
