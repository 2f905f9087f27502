import { readFile } from 'node:fs/promises'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'

export interface Keyring {
  data: Buffer
  /** apt tells the format by the file's extension. */
  extension: 'gpg' | 'asc'
}

/** The keys that the package lists must be signed by: `NESTVM_KEYRING`, else Debian's. Throws `KEYRING_MISSING`. */
export async function readKeyring(): Promise<Keyring> {
  const given = process.env.NESTVM_KEYRING
  const paths = given ? [given] : debianKeyrings
  for (const path of paths) {
    const data = await readIfThere(path)
    if (data !== undefined) return { data, extension: data.includes('-----BEGIN PGP') ? 'asc' : 'gpg' }
  }
  throw new NestvmError('KEYRING_MISSING', `the keyring ${paths.join(' or ')} is not on this host`, {
    hint: 'apt install debian-archive-keyring, or name a keyring in NESTVM_KEYRING',
    details: { paths },
  })
}

/** The second is where Debian 13 has moved it. */
const debianKeyrings = ['gpg', 'pgp'].map((extension) => `/usr/share/keyrings/debian-archive-keyring.${extension}`)

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw new NestvmError('KEYRING_MISSING', `the keyring ${path} cannot be read: ${errorCode(error)}`, {
      cause: error,
    })
  }
}
