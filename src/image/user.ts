import { NestvmError } from '../store/error.ts'

/** Whom a container's process runs as. */
export interface ResolvedUser {
  uid: number
  gid: number
  /** Supplementary groups. */
  groups: number[]
  /** `/` where the image does not say. */
  home: string
  /** Undefined for a number that has no name in the image. */
  name: string | undefined
}

/**
 * `user`, `uid`, `user:group`, `uid:gid` or nothing (root), by the image's /etc/passwd and /etc/group, as docker and
 * podman do: a number need not be in them; supplementary groups count only where no group is named.
 * Throws `NO_SUCH_USER` or `NO_SUCH_GROUP`.
 */
export function resolveUser(spec: string, { passwd, group }: { passwd: string; group: string }): ResolvedUser {
  const [userPart = '', groupPart = ''] = spec.split(/:(.*)/s)
  const wanted = userPart === '' ? '0' : userPart
  const users = rows(passwd, 7)
  const groups = rows(group, 4)
  // A name may consist of digits; as a name it counts first.
  const user =
    users.find(([name]) => name === wanted) ?? users.find(([, , uid]) => isId(wanted) && Number(uid) === Number(wanted))
  if (user === undefined && !isId(wanted)) throw unknown('NO_SUCH_USER', 'user', wanted, '/etc/passwd')
  const [name, , uid = wanted, gid = '0', , home] = user ?? []
  return {
    uid: Number(uid),
    gid: groupPart === '' ? Number(gid) : groupId(groups, groupPart),
    groups: groupPart === '' && name !== undefined ? memberships(groups, name) : [],
    home: home || '/',
    name,
  }
}

function groupId(groups: readonly string[][], wanted: string): number {
  const found = groups.find(([name]) => name === wanted)
  if (found === undefined && !isId(wanted)) throw unknown('NO_SUCH_GROUP', 'group', wanted, '/etc/group')
  return Number(found?.[2] ?? wanted)
}

function memberships(groups: readonly string[][], name: string): number[] {
  return groups.filter(([, , , members]) => members?.split(',').includes(name)).map(([, , gid]) => Number(gid))
}

/** Lines with too few fields, or no number where one has to be, are passed over. */
function rows(text: string, fields: number): string[][] {
  return text
    .split('\n')
    .map((line) => line.trim().split(':'))
    .filter((row) => row.length >= fields && isId(row[2] ?? '') && (fields < 7 || isId(row[3] ?? '')))
}

function isId(text: string): boolean {
  return /^\d+$/.test(text) && Number(text) < 0xffff_ffff
}

function unknown(code: 'NO_SUCH_USER' | 'NO_SUCH_GROUP', what: string, name: string, file: string): NestvmError {
  return new NestvmError(code, `the image has no ${what} ${JSON.stringify(name)}: its ${file} does not name one`, {
    hint: 'use a number',
    details: { [what]: name },
  })
}
