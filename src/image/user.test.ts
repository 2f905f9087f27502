import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resolveUser } from './user.ts'

const passwd = 'root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/srv/www:/bin/false\n1000:x:7:8::/odd:/bin/sh\n'
const group = 'root:x:0:\nwww:x:34:\naudio:x:29:www,other\nvideo:x:44:www\n'
const resolve = (spec: string) => resolveUser(spec, { passwd, group })

test('nothing means root', () => {
  assert.deepEqual(resolve(''), { uid: 0, gid: 0, groups: [], home: '/root', name: 'root' })
})

test('a name or its number gives the group, the groups and the home of the image', () => {
  const www = { uid: 33, gid: 34, groups: [29, 44], home: '/srv/www', name: 'www' }
  assert.deepEqual(resolve('www'), www)
  assert.deepEqual(resolve('33'), www)
})

test('with a group named, only that one counts', () => {
  assert.deepEqual(resolve('www:audio'), { uid: 33, gid: 29, groups: [], home: '/srv/www', name: 'www' })
  assert.equal(resolve('33:1234').gid, 1234)
})

test('numbers need not be in the image; a name of digits counts as a name first', () => {
  assert.deepEqual(resolve('4711'), { uid: 4711, gid: 0, groups: [], home: '/', name: undefined })
  assert.equal(resolve('1000').uid, 7)
  assert.deepEqual(resolveUser('5:6', { passwd: '', group: '' }), {
    uid: 5,
    gid: 6,
    groups: [],
    home: '/',
    name: undefined,
  })
})

test('unknown names are told', () => {
  assert.throws(() => resolve('nobody'), { code: 'NO_SUCH_USER', message: /nobody/ })
  assert.throws(() => resolve('www:wheel'), { code: 'NO_SUCH_GROUP', message: /wheel/ })
})
