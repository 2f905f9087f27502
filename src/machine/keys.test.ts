import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { after, test } from 'node:test'
import ssh2 from 'ssh2'
import { generateKeyPair } from './keys.ts'
import { LocalMachine } from './local.ts'
import { run } from './run.ts'

const dir = mkdtempSync(join(tmpdir(), 'keys-'))
after(() => rmSync(dir, { recursive: true }))
const hasKeygen = (process.env.PATH ?? '').split(delimiter).some((path) => existsSync(join(path, 'ssh-keygen')))

test('ssh2 reads the private key, and it is the one that the public key belongs to', () => {
  // The length of a comment decides the padding.
  for (const comment of ['', 'a', 'ab', 'abc', 'abcd', 'abcde', 'abcdef', 'abcdefg', 'outer-inner']) {
    const { openssh, publicBlob, publicLine } = generateKeyPair(comment)
    const parsed = ssh2.utils.parseKey(openssh)
    assert.ok(!(parsed instanceof Error), String(parsed))
    assert.equal(parsed.type, 'ssh-ed25519')
    assert.equal(parsed.comment, comment)
    assert.ok(parsed.isPrivateKey())
    assert.deepEqual(parsed.getPublicSSH(), publicBlob)
    assert.equal(publicLine, `ssh-ed25519 ${publicBlob.toString('base64')} ${comment}`)
    assert.equal(parsed.verify('text', parsed.sign('text')), true)
  }
})

test('ssh2 reads the line of authorized_keys', () => {
  const { publicLine, publicBlob } = generateKeyPair('nestvm')
  const parsed = ssh2.utils.parseKey(publicLine)
  assert.ok(!(parsed instanceof Error), String(parsed))
  assert.deepEqual(parsed.getPublicSSH(), publicBlob)
})

test("dropbear's form is the type, and the private and the public key in one string", () => {
  const { dropbear, publicBlob } = generateKeyPair('')
  assert.equal(dropbear.toString('latin1', 0, 19), '\0\0\0\x0bssh-ed25519\0\0\0\x40')
  assert.equal(dropbear.length, 19 + 64)
  const [seed, pub] = [dropbear.subarray(19, 51), dropbear.subarray(51)]
  assert.deepEqual(pub, publicBlob.subarray(-32))

  const x = pub.toString('base64url')
  const jwk = { kty: 'OKP', crv: 'Ed25519', x }
  const secret = createPrivateKey({ key: { ...jwk, d: seed.toString('base64url') }, format: 'jwk' })
  const signature = sign(null, Buffer.from('text'), secret)
  assert.ok(verify(null, Buffer.from('text'), createPublicKey({ key: jwk, format: 'jwk' }), signature))
})

test('ssh-keygen derives the public key from the private one', {
  skip: !hasKeygen && 'no ssh-keygen here',
}, async () => {
  const { openssh, publicLine } = generateKeyPair('a comment')
  const path = join(dir, 'key')
  writeFileSync(path, openssh, { mode: 0o600 })
  assert.equal((await run(new LocalMachine(), ['ssh-keygen', '-y', '-f', path])).stdout.trim(), publicLine)
})
