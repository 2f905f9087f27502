// NFS version 4.1 as numbers: RFC 8881 and its XDR, RFC 5662. Names are the RFCs', without prefixes.

export const program = 100003
export const version = 4
export const minorVersion = 1

export const status = {
  OK: 0,
  PERM: 1,
  NOENT: 2,
  IO: 5,
  NXIO: 6,
  ACCESS: 13,
  EXIST: 17,
  XDEV: 18,
  NOTDIR: 20,
  ISDIR: 21,
  INVAL: 22,
  FBIG: 27,
  NOSPC: 28,
  ROFS: 30,
  MLINK: 31,
  NAMETOOLONG: 63,
  NOTEMPTY: 66,
  DQUOT: 69,
  STALE: 70,
  BADHANDLE: 10001,
  NOTSUPP: 10004,
  TOOSMALL: 10005,
  SERVERFAULT: 10006,
  BADTYPE: 10007,
  DELAY: 10008,
  SAME: 10009,
  DENIED: 10010,
  SHARE_DENIED: 10015,
  CLID_INUSE: 10017,
  NOFILEHANDLE: 10020,
  MINOR_VERS_MISMATCH: 10021,
  STALE_CLIENTID: 10022,
  OLD_STATEID: 10024,
  BAD_STATEID: 10025,
  NOT_SAME: 10027,
  SYMLINK: 10029,
  RESTOREFH: 10030,
  ATTRNOTSUPP: 10032,
  NO_GRACE: 10033,
  BADXDR: 10036,
  LOCKS_HELD: 10037,
  OPENMODE: 10038,
  BADOWNER: 10039,
  BADCHAR: 10040,
  BADNAME: 10041,
  OP_ILLEGAL: 10044,
  FILE_OPEN: 10046,
  BADSESSION: 10052,
  BADSLOT: 10053,
  COMPLETE_ALREADY: 10054,
  SEQ_MISORDERED: 10063,
  SEQUENCE_POS: 10064,
  REP_TOO_BIG: 10066,
  RETRY_UNCACHED_REP: 10068,
  TOO_MANY_OPS: 10070,
  OP_NOT_IN_SESSION: 10071,
  CLIENTID_BUSY: 10074,
  NOT_ONLY_OP: 10081,
  WRONG_TYPE: 10083,
} as const

export const operation = {
  ACCESS: 3,
  CLOSE: 4,
  COMMIT: 5,
  CREATE: 6,
  GETATTR: 9,
  GETFH: 10,
  LINK: 11,
  LOCK: 12,
  LOCKT: 13,
  LOCKU: 14,
  LOOKUP: 15,
  LOOKUPP: 16,
  NVERIFY: 17,
  OPEN: 18,
  OPEN_DOWNGRADE: 21,
  PUTFH: 22,
  PUTPUBFH: 23,
  PUTROOTFH: 24,
  READ: 25,
  READDIR: 26,
  READLINK: 27,
  REMOVE: 28,
  RENAME: 29,
  RESTOREFH: 31,
  SAVEFH: 32,
  SECINFO: 33,
  SETATTR: 34,
  VERIFY: 37,
  WRITE: 38,
  BIND_CONN_TO_SESSION: 41,
  EXCHANGE_ID: 42,
  CREATE_SESSION: 43,
  DESTROY_SESSION: 44,
  FREE_STATEID: 45,
  SECINFO_NO_NAME: 52,
  SEQUENCE: 53,
  TEST_STATEID: 55,
  DESTROY_CLIENTID: 57,
  RECLAIM_COMPLETE: 58,
  ILLEGAL: 10044,
} as const

/** The first and the last number that version 4.1 gives a meaning. */
export const knownOperations = { first: 3, last: 58 }

export const fileType = { regular: 1, directory: 2, block: 3, character: 4, link: 5, socket: 6, fifo: 7 } as const

export const attribute = {
  supported_attrs: 0,
  type: 1,
  fh_expire_type: 2,
  change: 3,
  size: 4,
  link_support: 5,
  symlink_support: 6,
  named_attr: 7,
  fsid: 8,
  unique_handles: 9,
  lease_time: 10,
  rdattr_error: 11,
  aclsupport: 13,
  cansettime: 15,
  case_insensitive: 16,
  case_preserving: 17,
  chown_restricted: 18,
  filehandle: 19,
  fileid: 20,
  files_avail: 21,
  files_free: 22,
  files_total: 23,
  homogeneous: 26,
  maxfilesize: 27,
  maxlink: 28,
  maxname: 29,
  maxread: 30,
  maxwrite: 31,
  mode: 33,
  no_trunc: 34,
  numlinks: 35,
  owner: 36,
  owner_group: 37,
  rawdev: 41,
  space_avail: 42,
  space_free: 43,
  space_total: 44,
  space_used: 45,
  time_access: 47,
  time_access_set: 48,
  time_create: 50,
  time_delta: 51,
  time_metadata: 52,
  time_modify: 53,
  time_modify_set: 54,
  mounted_on_fileid: 55,
  suppattr_exclcreat: 75,
} as const

/** What SETATTR takes, in the order of their numbers. */
export const settable: readonly number[] = [
  attribute.size,
  attribute.mode,
  attribute.owner,
  attribute.owner_group,
  attribute.time_access_set,
  attribute.time_modify_set,
]

/** Bits of ACCESS. */
export const access = { READ: 1, LOOKUP: 2, MODIFY: 4, EXTEND: 8, DELETE: 16, EXECUTE: 32 } as const

/** Bits of OPEN's share_access and share_deny. */
export const share = { READ: 1, WRITE: 2, BOTH: 3 } as const

/** How durable a WRITE is. */
export const stable = { UNSTABLE: 0, DATA_SYNC: 1, FILE_SYNC: 2 } as const

export const lockType = { READ: 1, WRITE: 2, READW: 3, WRITEW: 4 } as const

/** The most bytes of one READ or WRITE, and of one message. */
export const maxIo = 1 << 20
export const maxMessage = maxIo + (64 << 10)

/** Seconds. Nothing is taken from a client when its lease ends unless another one wants it. */
export const leaseTime = 60
