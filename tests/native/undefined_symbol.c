/* A shared object that wants a symbol which no library has, as an extension built for another torch does. */
extern int _ZN3c104cuda9SetDeviceEi(int);
int (*wanted)(int) = _ZN3c104cuda9SetDeviceEi;
