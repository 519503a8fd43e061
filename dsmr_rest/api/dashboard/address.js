/** Where the files of the page and the stream are. It does not know what is in them. */

/**
 * The address of a file, relative to this one. The address of the page may contain a user name and a password, and that
 * of this module with it: fetch() refuses such an address. A browser sends them without being told again.
 */
export function addressOf(name) {
  const address = new URL(name, import.meta.url);
  address.username = '';
  address.password = '';
  return address;
}
