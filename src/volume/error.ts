import { errorCode } from '../store/errno.ts'
import { status } from './protocol.ts'

export type Status = (typeof status)[keyof typeof status]

/** An operation's failure, as the client is told. */
export class NfsError extends Error {
  constructor(readonly status: Status) {
    super(`NFS status ${status}`)
  }
}

export function fail(name: keyof typeof status): never {
  throw new NfsError(status[name])
}

/** What to tell a client of whatever was thrown. */
export function statusOf(error: unknown): Status {
  if (error instanceof NfsError) return error.status
  const code = errorCode(error)
  return (code !== undefined && byErrno[code]) || status.SERVERFAULT
}

const byErrno: Partial<Record<string, Status>> = {
  EPERM: status.PERM,
  ENOENT: status.NOENT,
  EIO: status.IO,
  ENXIO: status.NXIO,
  EACCES: status.ACCESS,
  EEXIST: status.EXIST,
  EXDEV: status.XDEV,
  ENOTDIR: status.NOTDIR,
  EISDIR: status.ISDIR,
  EINVAL: status.INVAL,
  EFBIG: status.FBIG,
  ENOSPC: status.NOSPC,
  EROFS: status.ROFS,
  EMLINK: status.MLINK,
  ENAMETOOLONG: status.NAMETOOLONG,
  ENOTEMPTY: status.NOTEMPTY,
  EDQUOT: status.DQUOT,
  ESTALE: status.STALE,
  ELOOP: status.SYMLINK,
  EOPNOTSUPP: status.NOTSUPP,
  ENOTSUP: status.NOTSUPP,
  // Both arrive in the guest as EBUSY.
  EBUSY: status.FILE_OPEN,
  ETXTBSY: status.FILE_OPEN,
  // The client tries again after a while.
  EMFILE: status.DELAY,
  ENFILE: status.DELAY,
}
