import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../../src/machine/run.ts'
import { machine } from './programs.ts'

/** Paths of PEM files. */
export interface Certificate {
  cert: string
  key: string
}

/** A certificate authority of the test's own, in a directory. */
export async function makeAuthority(dir: string): Promise<Certificate> {
  await mkdir(dir, { recursive: true })
  const made = { cert: join(dir, 'ca.crt'), key: join(dir, 'ca.key') }
  await openssl('req', '-x509', '-days', '2', '-subj', '/CN=test authority', ...newKey(made))
  return made
}

/** What an authority has signed: for a server's names and addresses, or for a client. */
export async function makeCertificate(
  authority: Certificate,
  dir: string,
  name: string,
  subjects = `DNS:${name}`,
): Promise<Certificate> {
  const made = { cert: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) }
  const request = join(dir, `${name}.csr`)
  const extensions = join(dir, `${name}.ext`)
  await writeFile(extensions, `subjectAltName=${subjects}\nextendedKeyUsage=serverAuth,clientAuth\n`)
  await openssl('req', '-subj', `/CN=${name}`, ...newKey({ cert: request, key: made.key }))
  const signer = ['-CA', authority.cert, '-CAkey', authority.key, '-CAcreateserial', '-days', '2']
  await openssl('x509', '-req', '-in', request, '-out', made.cert, ...signer, '-extfile', extensions)
  return made
}

function newKey({ cert, key }: Certificate): string[] {
  return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert]
}

async function openssl(...args: string[]): Promise<void> {
  await run(machine, ['openssl', ...args])
}
