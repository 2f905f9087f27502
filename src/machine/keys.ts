import { generateKeyPairSync, type KeyObject } from 'node:crypto'

/** An ed25519 key pair in the forms that ssh programs want. */
export interface KeyPair {
  /** For `authorized_keys` and, after a host name, `known_hosts`. */
  publicLine: string
  /** The public key as it travels: RFC 8709, section 4. */
  publicBlob: Buffer
  /** OpenSSH's own format (PROTOCOL.key): what ssh and ssh2 read. */
  openssh: string
  /** What dropbear reads as a host key: its signkey.c writes type, then private and public key as one string. */
  dropbear: Buffer
}

export function generateKeyPair(comment: string): KeyPair {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const pub = rawKey(publicKey, 'x')
  const both = Buffer.concat([rawKey(privateKey, 'd'), pub])
  const publicBlob = Buffer.concat([string(type), string(pub)])
  return {
    publicLine: `${type} ${publicBlob.toString('base64')} ${comment}`,
    publicBlob,
    openssh: opensshPrivateKey(publicBlob, pub, both, comment),
    dropbear: Buffer.concat([string(type), string(both)]),
  }
}

const type = 'ssh-ed25519'

function rawKey(key: KeyObject, part: 'x' | 'd'): Buffer {
  const value = key.export({ format: 'jwk' })[part]
  if (value === undefined) throw new TypeError(`the key has no ${part}`)
  return Buffer.from(value, 'base64url')
}

function opensshPrivateKey(publicBlob: Buffer, pub: Buffer, both: Buffer, comment: string): string {
  // Two equal numbers let a reader see that decryption worked; there is none here.
  const check = Buffer.alloc(8)
  const secret = Buffer.concat([check, string(type), string(pub), string(both), string(comment)])
  const padding = Buffer.from(Array.from({ length: (8 - (secret.length % 8)) % 8 }, (_, i) => i + 1))
  const body = Buffer.concat([
    Buffer.from('openssh-key-v1\0'),
    string('none'),
    string('none'),
    string(''),
    uint32(1),
    string(publicBlob),
    string(Buffer.concat([secret, padding])),
  ])
  const lines = body.toString('base64').match(/.{1,70}/g) ?? []
  return ['-----BEGIN OPENSSH PRIVATE KEY-----', ...lines, '-----END OPENSSH PRIVATE KEY-----', ''].join('\n')
}

function string(value: string | Buffer): Buffer {
  const data = Buffer.from(value)
  return Buffer.concat([uint32(data.length), data])
}

function uint32(value: number): Buffer {
  const data = Buffer.alloc(4)
  data.writeUInt32BE(value)
  return data
}
