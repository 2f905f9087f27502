import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { generateKeyPair } from './keys.ts'
import { findLogins } from './ssh-login.ts'

/** One that holds these public keys: draft-ietf-sshm-ssh-agent, "Requesting a list of keys". */
function agentWith(keys: readonly Buffer[]) {
  const word = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value])
  const list = keys.flatMap((key) => [word(key.length), key, word(0)])
  const answer = Buffer.concat([Buffer.from([12]), word(keys.length), ...list])
  return createServer((socket) => {
    socket.once('data', () => socket.write(Buffer.concat([word(answer.length), answer])))
  })
}

test("an identity file may be the public key of one that the agent holds: of the agent's keys it is the only one tried", async () => {
  const dir = mkdtempSync(join(tmpdir(), 'login-'))
  const [wanted, other] = [generateKeyPair('wanted'), generateKeyPair('other')]
  const path = join(dir, 'id.pub')
  writeFileSync(path, `${wanted.publicLine}\n`)
  const socket = join(dir, 'agent')
  const server = agentWith([other.publicBlob, wanted.publicBlob]).listen(socket)
  const { logins } = await findLogins({
    ...{ url: 'ssh://host', destination: 'host', host: 'host', port: 22, user: 'me', hostKeyAlias: undefined },
    ...{ knownHostsFiles: [], identityFiles: [path], identitiesOnly: true, agent: socket, proxy: undefined },
  })
  const [login, ...more] = logins
  assert.ok(login && 'agent' in login)
  assert.deepEqual(more, [])
  const keys = await new Promise<unknown[]>((resolve, reject) => {
    login.agent.getIdentities((error, found) => (error ? reject(error) : resolve([...(found ?? [])])))
  })
  assert.equal(keys.length, 1)
  server.close()
  rmSync(dir, { recursive: true })
})
