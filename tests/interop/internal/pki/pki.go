// Package pki makes the certificates of a deployment in a folder: one authority, a leaf per component, as the platform's
// own tests make them (RSA, SHA-256, PKCS#1, the common name and 127.0.0.1 as alternative names), but with keys of 2048
// bits where those have 1024, which our programs refuse.
package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const keyBits = 2048

// Authority signs leaves. Its certificate stands in a file of its own.
type Authority struct {
	dir    string
	cert   *x509.Certificate
	key    *rsa.PrivateKey
	CAFile string
}

// Files are what one component is configured with.
type Files struct {
	CA, Cert, Key string
}

// New makes an authority in dir, which must exist.
func New(dir, name string) (*Authority, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	template, err := base(name)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name+".crt")
	return &Authority{dir: dir, cert: cert, key: key, CAFile: file}, writePEM(file, "CERTIFICATE", der)
}

// Issue makes a leaf for name, for servers and clients, or makes it anew under the same file names.
func (a *Authority) Issue(name string) (Files, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return Files{}, err
	}
	template, err := base(name)
	if err != nil {
		return Files{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment |
		x509.KeyUsageDataEncipherment | x509.KeyUsageKeyAgreement
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = []string{name}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return Files{}, err
	}
	files := Files{
		CA:   a.CAFile,
		Cert: filepath.Join(a.dir, name+".crt"),
		Key:  filepath.Join(a.dir, name+".key"),
	}
	if err := writePEM(files.Key, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)); err != nil {
		return Files{}, err
	}
	return files, writePEM(files.Cert, "CERTIFICATE", der)
}

func base(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber:       serial,
		Subject:            pkix.Name{CommonName: name},
		NotBefore:          now.Add(-time.Hour),
		NotAfter:           now.Add(24 * time.Hour),
		SignatureAlgorithm: x509.SHA256WithRSA,
	}, nil
}

// writePEM replaces the file in one step, as a rotation does.
func writePEM(path, kind string, der []byte) error {
	next := path + ".next"
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// Client is a configuration that presents the leaf and expects the peer to be serverName; ALPN is left to the caller.
func (f Files) Client(serverName string) (*tls.Config, error) {
	pair, pool, err := f.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ServerName:   serverName,
		MinVersion:   tls.VersionTLS12,
	}, nil
}

// Server is a configuration that presents the leaf and demands a certificate of the same authority.
func (f Files) Server() (*tls.Config, error) {
	pair, pool, err := f.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS12,
	}, nil
}

func (f Files) load() (tls.Certificate, *x509.CertPool, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return pair, nil, err
	}
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return pair, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return pair, nil, fmt.Errorf("%s holds no certificate", f.CA)
	}
	return pair, pool, nil
}
