import { access, readdir, readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'

/**
 * Whom a registry is believed by, and what it is shown. As docker and podman have it, a registry has a directory named
 * `HOST[:PORT]`, with authorities in `*.crt` and the client's own certificates in `*.cert`, each with its `*.key`; the
 * first that is there counts (containers-certs.d(5)). The authorities of the host are believed too, and Node's.
 * Throws `BAD_CERTIFICATE`.
 */
export async function secureContextFor(host: string, dirs = certificateDirs()): Promise<SecureContext> {
  const dir = await firstDirectory(dirs.map((path) => join(path, host)))
  const names = dir === undefined ? [] : await readdir(dir).catch(unreadable(dir))
  const read = (name: string) => readFile(join(dir ?? '', name), 'utf8').catch(unreadable(join(dir ?? '', name)))
  const pairs = namesOfPairs(names, dir ?? '')
  const ca = await Promise.all(names.filter((name) => name.endsWith('.crt')).map(read))
  const cert = await Promise.all(pairs.map((name) => read(`${name}.cert`)))
  const key = await Promise.all(pairs.map((name) => read(`${name}.key`)))
  const own = pairs.length > 0 ? { cert, key } : {}
  try {
    return createSecureContext({ ca: [...rootCertificates, ...(await hostAuthorities()), ...ca], ...own })
  } catch (error) {
    throw bad(dir ?? host, error instanceof Error ? error.message : String(error))
  }
}

/** In the order that podman looks at them. */
export function certificateDirs(): string[] {
  const config = process.env.XDG_CONFIG_HOME || join(homedir(), '.config')
  return [join(config, 'containers/certs.d'), '/etc/containers/certs.d', '/etc/docker/certs.d']
}

/** Directories that cannot be entered are passed over. */
async function firstDirectory(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    const there = await access(path).then(
      () => true,
      () => false,
    )
    if (there) return path
  }
  return undefined
}

function namesOfPairs(names: readonly string[], dir: string): string[] {
  const of = (end: string) => names.filter((name) => name.endsWith(end)).map((name) => name.slice(0, -end.length))
  const [certificates, keys] = [of('.cert'), of('.key')]
  const alone = certificates.find((name) => !keys.includes(name))
  if (alone !== undefined) {
    throw bad(join(dir, `${alone}.cert`), `${alone}.key is not beside it; authorities have names that end with .crt`)
  }
  const useless = keys.find((name) => !certificates.includes(name))
  if (useless !== undefined) throw bad(join(dir, `${useless}.key`), `${useless}.cert is not beside it`)
  return certificates.sort()
}

/** Where distributions keep them: Debian, Fedora, SUSE, Alpine. The first that is there has all. */
const bundles = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
]

/** What an administrator adds there, for an own registry or a proxy that looks into TLS, is not among Node's. */
async function hostAuthorities(): Promise<string[]> {
  const { SSL_CERT_FILE, NODE_EXTRA_CA_CERTS } = process.env
  const extra = NODE_EXTRA_CA_CERTS ? await readFile(NODE_EXTRA_CA_CERTS, 'utf8').catch(() => '') : ''
  for (const path of SSL_CERT_FILE ? [SSL_CERT_FILE] : bundles) {
    const found = await readFile(path, 'utf8').catch(() => '')
    if (found !== '') return extra === '' ? [found] : [found, extra]
  }
  return extra === '' ? [] : [extra]
}

function unreadable(path: string): (error: unknown) => never {
  return (error) => {
    throw bad(path, errorCode(error) ?? String(error))
  }
}

function bad(path: string, why: string): NestvmError {
  return new NestvmError('BAD_CERTIFICATE', `a certificate cannot be used: ${path}: ${why}`, { details: { path } })
}
