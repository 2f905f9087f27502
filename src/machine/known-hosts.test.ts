import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'
import { generateKeyPair } from './keys.ts'
import { judgeHostKey, knownHostsName, knownKeyTypes } from './known-hosts.ts'

const key = generateKeyPair('')
const other = generateKeyPair('')
const line = (hosts: string, pair = key) => `${hosts} ${pair.publicLine}`
const judge = (text: string, name: string) => judgeHostKey(['', text], name, key.publicBlob)

test('a key is known by the name of its host, whatever else the file says', () => {
  const file = ['# comment', '', line('else', other), line('one,two,10.0.0.*'), 'nonsense'].join('\n')
  assert.equal(judge(file, 'two'), 'known')
  assert.equal(judge(file, '10.0.0.7'), 'known')
  assert.equal(judge(file, 'three'), 'unknown')
  assert.equal(judge(file, 'twoo'), 'unknown')
  assert.equal(judge('', 'two'), 'unknown')
})

test('a host with another key of this type has changed; with keys of other types it is just not known by this one', () => {
  assert.equal(judge(line('one', other), 'one'), 'changed')
  assert.equal(judge(`one ssh-rsa AAAA\n`, 'one'), 'other')
  assert.equal(judge(`${line('one', other)}\n${line('one')}`, 'one'), 'known')
})

test('ports other than 22, hashed names, exclusions and revocations count as ssh has them', () => {
  assert.equal(knownHostsName('Host', 22), 'host')
  assert.equal(judge(line('[host]:2222'), knownHostsName('host', 2222)), 'known')
  assert.equal(judge(line('host'), knownHostsName('host', 2222)), 'unknown')
  const salt = Buffer.alloc(20, 7)
  const hash = createHmac('sha1', salt).update('[h]:2222').digest('base64')
  assert.equal(judge(line(`|1|${salt.toString('base64')}|${hash}`), '[h]:2222'), 'known')
  assert.equal(judge(line(`|1|${salt.toString('base64')}|${hash}`), 'h'), 'unknown')
  assert.equal(judge(line('*.net,!bad.net'), 'good.net'), 'known')
  assert.equal(judge(line('*.net,!bad.net'), 'bad.net'), 'unknown')
  assert.equal(judge(`${line('one')}\n@revoked ${line('*')}`, 'one'), 'revoked')
  assert.equal(judge(`@cert-authority ${line('one')}`, 'one'), 'unknown')
})

test('the types of the known keys are told, so that the host can be asked for those', () => {
  assert.deepEqual(knownKeyTypes([line('one'), 'one ssh-rsa AAAA\ntwo ecdsa-sha2-nistp256 AAAA'], 'one'), [
    'ssh-ed25519',
    'ssh-rsa',
  ])
})
